"""Every reader of json and yaml from elsewhere, on files damaged at random: a result or one sentence.

Seeded; a failure names the seed of its file.
"""
import copy
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnext_dense.datasets.checks.check import check_dataset
from convnext_dense.datasets.checks.repair import repair
from convnext_dense.datasets.checks.targets import targets_of_path
from convnext_dense.datasets.convert import FORMATS
from convnext_dense.datasets.convert.class_files import read_classes
from convnext_dense.datasets.convert.planning import plan_samples
from convnext_dense.datasets.convert.source import Options
from convnext_dense.datasets.convert.writing import write_dataset
from convnext_dense.datasets.layout import DatasetInfo
from convnext_dense.datasets.shapes import ShapesParams, generate_shapes
from convnext_dense.errors import UserError
from convnext_dense.projects.objects import read_objects

NESTED = json.loads('[' * 150 + ']' * 150)
JUNK = [
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, -2**63, 10**30, 10**400, 0.5, -0.0, 1e308, float('nan'), float('inf'),
    '', 'a', '1', 'a\nb', '\0', '\ud800', '../..', '/etc', '/dev/zero', '.', 'images', 'nan', 'x' * 5000,
    [], {}, [[]], [None], {'id': 1}, {'a': [1]}, [1, 2, 3, 4], [[1, 2, 3, 4, 5, 6]], [[1, 2, 'a', 4, 5, 6]], NESTED,
    {'size': [8, 8], 'counts': 'abc'}, {'size': [8, 8], 'counts': [64]}, {'size': None, 'counts': '00000000000000~'},
    {'size': [8, 8], 'counts': [1.5, 'a', None]}, {'size': [2**40, 2**40], 'counts': [2**40]}]

COCO = {
    'info': {'year': 2017},
    'images': [{'id': n, 'file_name': f'{n}.png', 'width': 8, 'height': 8} for n in (1, 2)],
    'annotations': [
        {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 4, 4], 'area': 16, 'iscrowd': 0,
         'segmentation': [[1, 1, 5, 1, 5, 5, 1, 5]]},
        {'id': 2, 'image_id': 2, 'category_id': 2, 'bbox': [0, 0, 8, 8], 'area': 64, 'iscrowd': 1,
         'segmentation': {'size': [8, 8], 'counts': [0, 64]}},
        {'id': 3, 'image_id': 2, 'category_id': 1, 'bbox': [0, 0, 8, 8], 'area': 64, 'iscrowd': 1,
         'segmentation': {'size': [8, 8], 'counts': '0P2'}}],
    'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}]}
DATASET = {'task': 'det', 'classes': ['a', 'b'], 'palette': [[0, 0, 0], [9, 9, 9]], 'source': 'coco', 'has_masks': True,
           'splits': {split: {'images': 3, 'objects': {'a': 1, 'b': 2}, 'img_prefix': 'images/',
                              'ann_file': 'annotations/all.json'} for split in ('train', 'val')}}
CLASSES = [['car', 'bus'], {'car': 7}, {'7': 'car'}, {'car': [0, 0, 255]},
           [{'name': 'car', 'id': 7, 'color': [0, 0, 255]}]]
MAPS = [{'0': {'1': 'car'}, '1': {'1': 'bus'}}, {'1': 'car', '2': 'bus'}]
YOLO = {'path': '.', 'train': 'images', 'val': ['images'], 'names': {0: 'cat', 1: 'dog'}}


def mutated(value, rng: random.Random):
    """A copy with one to three places replaced, removed, repeated or added to."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        places = list(places_in(value))
        if not places:
            return copy.deepcopy(rng.choice(JUNK))
        container, key = rng.choice(places)
        change = rng.randrange(8)
        if change == 0 and len(container):
            del container[key]
        elif change == 1 and isinstance(container, list):
            container.append(copy.deepcopy(rng.choice(JUNK)))
        elif change == 2 and isinstance(container, list):
            container.append(container[key])
        elif change == 3 and isinstance(container, dict):
            container[rng.choice(['', 'id', 'x', 'size', '0', '_base_'])] = copy.deepcopy(rng.choice(JUNK))
        elif isinstance(container[key], (int, float)) and change == 4:
            container[key] = rng.choice([-1, 0, 2, 10**9, 10**12]) * (container[key] or 1)
        else:
            container[key] = copy.deepcopy(rng.choice(JUNK))
    return value if rng.random() > 0.02 else copy.deepcopy(rng.choice(JUNK))


def places_in(value, depth: int = 0):
    """(container, key) of every value inside lists and objects."""
    if depth < 8 and isinstance(value, (list, dict)):
        for key in range(len(value)) if isinstance(value, list) else list(value):
            yield value, key
            yield from places_in(value[key], depth + 1)


def damaged_text(text: str, rng: random.Random) -> bytes:
    """The text, now and then with some bytes cut off, removed or changed."""
    data = bytearray(text.encode('utf-8', 'surrogatepass'))
    if rng.random() < 0.3 and data:
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            junk = rng.choice([b'', b'\0', b'\xff', b'[', b'{', b'"', b'\\', b'9' * 30])
            data[at:at + rng.choice([0, 1, 1, 8])] = junk
        if rng.random() < 0.3:
            del data[rng.randrange(len(data) + 1):]
    return bytes(data)


class Case:
    """A folder with small images, masks and labels, whose json files are written anew for each seed."""

    def __init__(self, folder: Path):
        self.folder, self.file, self.out, self.fixed = folder, folder / 'd/all.json', folder / 'out', folder / 'fixed'
        for number in (1, 2):
            for kind in ('images', 'masks'):
                file = folder / f'd/{kind}/{number}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8), number, np.uint8)).save(file)
        (folder / 'd/labels').mkdir()
        (folder / 'd/labels/1.txt').write_text('0 0.5 0.5 0.5 0.5\n')

    def write(self, value, rng: random.Random) -> Path:
        self.file.write_bytes(damaged_text(json.dumps(value, ensure_ascii=rng.random() < 0.5), rng))
        return self.file

    def convert(self, name: str, options: Options, root: Path | None = None) -> None:
        source = FORMATS[name].open_source(root or self.folder / 'd', options)
        write_dataset(self.out, source, plan_samples(source, None, 0), name, 'symlink')
        DatasetInfo.read(self.out)


def convert_coco(case: Case, rng: random.Random) -> None:
    case.write(mutated(COCO, rng), rng)
    case.convert('coco', Options())


def check_coco(case: Case, rng: random.Random) -> None:
    file = case.write(mutated(COCO, rng), rng)
    targets = targets_of_path(file, str(case.folder / 'd/images'))
    findings = check_dataset(targets, 0)
    assert all(line.isprintable() for line in findings.lines())
    findings.write_json(case.folder / 'found.json')
    repair(targets, findings, case.fixed)
    if 'json-broken' not in findings.found:
        json.loads((case.fixed / file.name).read_text())
    read_objects(file)


def read_dataset_json(case: Case, rng: random.Random) -> None:
    case.write(mutated(DATASET, rng), rng).replace(case.folder / 'd/dataset.json')
    try:
        DatasetInfo.read(case.folder / 'd')
    finally:
        (case.folder / 'd/dataset.json').unlink()


def read_class_list(case: Case, rng: random.Random) -> None:
    file = case.write(mutated(rng.choice(CLASSES), rng), rng)
    read_classes(str(file), case.folder)
    case.convert('label-pngs', Options(classes=str(file), unknown='ignore'))


def read_class_map(case: Case, rng: random.Random) -> None:
    case.convert('instance-masks', Options(class_map=str(case.write(mutated(rng.choice(MAPS), rng), rng))))


def read_yolo(case: Case, rng: random.Random) -> None:
    value = mutated(YOLO, rng)
    if isinstance(value, dict) and isinstance(value.get('names'), dict) and rng.random() < 0.8:
        value['names'] = {int(key) if key.isdigit() else key: name for key, name in value['names'].items()}
    file = case.folder / 'd/data.yaml'
    file.write_bytes(damaged_text(json.dumps(value).replace('"0"', '0').replace('"1"', '1'), rng))
    (case.folder / 'd/labels/1.txt').write_text(' '.join(
        rng.choice(['0', '1', '0.5', '-3', 'nan', 'inf', '1e999', 'a', '\n']) for _ in range(12)))
    case.convert('yolo', Options(), file)


def read_shapes_json(case: Case, rng: random.Random) -> None:
    (case.folder / 's').mkdir(exist_ok=True)
    case.write(mutated({'generator': 1, 'seed': 0}, rng), rng).replace(case.folder / 's/shapes.json')
    generate_shapes(case.folder / 's', ShapesParams(train=1, val=1, size=64))


READERS = [convert_coco, check_coco, read_dataset_json, read_class_list, read_class_map, read_yolo, read_shapes_json]


def fuzz(reader: Callable, seeds: range, folder: Path) -> None:
    case, refused = Case(folder), 0
    for seed in seeds:
        try:
            reader(case, random.Random(seed))
        except UserError as error:
            refused += 1
            assert 10 < len(str(error)) < 2000, f'seed {seed}'
        except Exception as error:
            raise AssertionError(f'{reader.__name__}, seed {seed}: {type(error).__name__}: {error}') from error
    print(f'{reader.__name__}: {len(seeds)} files, {refused} refused in one sentence')


@pytest.mark.parametrize('reader', READERS)
def test_damaged_files(reader, tmp_path):
    fuzz(reader, range(30), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('reader', READERS)
def test_many_damaged_files(reader, tmp_path):
    fuzz(reader, range(1000, 2000), tmp_path)
