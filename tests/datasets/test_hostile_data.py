"""Data that is damaged, malicious or just unusual: one sentence and no harm, or the right result."""
import json
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from convert_sources import LOSSES, convert, small_pairs
from PIL import Image
from plant_faults import png_header
from pycocotools.coco import COCO
from tool_runs import run_tool

from convnext_dense.datasets.checks import files
from convnext_dense.datasets.checks.check import check_dataset
from convnext_dense.datasets.checks.coco import CocoTarget
from convnext_dense.datasets.checks.findings import Findings
from convnext_dense.datasets.checks.repair import repair
from convnext_dense.datasets.checks.targets import targets_of_path
from convnext_dense.datasets.convert.pairs import find_pairs
from convnext_dense.datasets.convert.source import Options, Skipped
from convnext_dense.datasets.layout import DatasetInfo
from convnext_dense.errors import UserError


def write_png(file: Path, value: int, size: int = 8) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size), value, np.uint8)).save(file)


def coco_folder(folder: Path, **changed) -> Path:
    """Two images with an object each; `changed` replaces keys of the json."""
    for number in (1, 2):
        write_png(folder / f'images/{number}.png', number)
    content = {
        'images': [{'id': n, 'file_name': f'{n}.png', 'width': 8, 'height': 8} for n in (1, 2)],
        'annotations': [{'id': n, 'image_id': n, 'category_id': 1, 'bbox': [1, 1, 4, 4], 'area': 16, 'iscrowd': 0}
                        for n in (1, 2)],
        'categories': [{'id': 1, 'name': 'thing'}], **changed}
    (folder / 'annotations').mkdir()
    (folder / 'annotations/all.json').write_text(json.dumps(content))
    return folder


# ---- images and masks that belong together

def test_masks_belong_to_the_image_of_their_own_folder(tmp_path):
    """As in DAVIS: every folder counts from 00000; a mask holds the number of its folder, as its image does."""
    for number, name in enumerate(('camel', 'bear', 'dog'), 1):
        for frame in range(4):
            write_png(tmp_path / f'source/images/{name}/{frame:05d}.png', 100 + number)
            write_png(tmp_path / f'source/masks/{name}/{frame:05d}.png', number)
    finished = convert(tmp_path / 'source', tmp_path / 'out', '--from', 'label-pngs', '--classes', '0,camel,bear,dog')
    assert 'left out' not in finished.out
    pairs = 0
    for label in (tmp_path / 'out/annotations').rglob('*.png'):
        image = tmp_path / 'out/images' / label.relative_to(tmp_path / 'out/annotations')
        assert np.asarray(Image.open(image))[0, 0] == 100 + np.asarray(Image.open(label))[0, 0]
        pairs += 1
    assert pairs == 12


def pairs_of(folder: Path, images: list[str], masks: list[str]) -> dict[str, str]:
    for name in images:
        write_png(folder / 'images' / name, 1)
    for name in masks:
        write_png(folder / 'masks' / name, 1)
    return {pair.image.relative_to(folder / 'images').as_posix(): pair.mask.relative_to(folder / 'masks').as_posix()
            for pair in find_pairs(folder, Options(), Skipped())}


@pytest.mark.parametrize('images, masks, expected', [
    (['a.png', 'b.png'], ['a.png', 'b_mask.png'], {'a.png': 'a.png', 'b.png': 'b_mask.png'}),
    (['a.png', 'a_b.png'], ['a_b.png', 'a.png'], {'a.png': 'a.png', 'a_b.png': 'a_b.png'}),
    (['train/a.png', 'val/a.png'], ['training/a.png', 'validation/a.png'],
     {'train/a.png': 'training/a.png', 'val/a.png': 'validation/a.png'}),
    (['train/x/a.png', 'train/y/b.png'], ['a.png', 'b.png'], {'train/x/a.png': 'a.png', 'train/y/b.png': 'b.png'}),
    (['JPEG/camel/0.png', 'JPEG/bear/0.png'], ['camel/0.png', 'bear/0.png'],
     {'JPEG/camel/0.png': 'camel/0.png', 'JPEG/bear/0.png': 'bear/0.png'}),
    (['camel/0.png', 'dog/1.png'], ['bear/0.png', 'dog/1.png'], {'dog/1.png': 'dog/1.png'}),
    (['a.png'], ['a.png', 'a_colour.png'], {'a.png': 'a.png'}),
])
def test_pairs_by_relative_path(images, masks, expected, tmp_path):
    assert pairs_of(tmp_path, images, masks) == expected


@pytest.mark.parametrize('images, masks, sentence', [
    (['camel/0.png', 'bear/0.png'], ['0.png'], 'the mask .+0.png could belong to .+bear/0.png or .+camel/0.png'),
    (['a.png', 'a.jpg'], ['a.png'], 'could belong to .+a.jpg or .+a.png'),
    (['a.png'], ['a_1.png', 'a_2.png'], 'a.png could have the mask .+a_1.png or .+a_2.png: keep one mask'),
])
def test_ambiguous_pairs_are_refused(images, masks, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        pairs_of(tmp_path, images, masks)


def test_class_map_by_path_and_by_stem(tmp_path):
    for name in ('camel', 'bear'):
        write_png(tmp_path / f'source/images/{name}/0.png', 9)
        write_png(tmp_path / f'source/masks/{name}/0.png', 1)
    arguments = (tmp_path / 'source', tmp_path / 'out', '--from', 'instance-masks', '--class-map',
                 tmp_path / 'map.json')
    (tmp_path / 'map.json').write_text(json.dumps({'0': {'1': 'camel'}}))
    assert '2 images are named 0: give their paths' in run_tool('convert_dataset', *arguments).error
    (tmp_path / 'map.json').write_text(json.dumps({'camel/0': {'1': 'camel'}, 'bear/0': {'1': 'bear'}}))
    convert(*arguments)
    splits = DatasetInfo.read(tmp_path / 'out').splits.values()
    assert [sum(split.counts[name] for split in splits) for name in ('bear', 'camel')] == [1, 1]


# ---- large images

def test_the_converter_leaves_out_images_above_the_limit(tmp_path, monkeypatch):
    source = small_pairs(tmp_path / 'source', [np.eye(8, dtype=np.uint8)] * 5)
    (source / 'images/1.png').write_bytes(png_header(20_000, 20_000))
    (source / 'masks/2.png').write_bytes(png_header(20_000, 20_000))
    arguments = (source, tmp_path / 'out', '--from', 'label-pngs', '--classes', 'ground,line')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    finished = convert(*arguments, status=LOSSES)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB; decoded, one has 1.2 GB
    for what, name in (('image', '1.png'), ('mask', '2.png')):
        assert f'left out: 1 x {what} with more than 178,956,970 pixels (CONVNEXT_DENSE_MAX_PIXELS) (first: ' in \
            finished.out and name in finished.out
    monkeypatch.setenv('CONVNEXT_DENSE_MAX_PIXELS', '63')
    assert '5 x image with more than 63 pixels' in run_tool('convert_dataset', *arguments, '--overwrite').error
    monkeypatch.setenv('CONVNEXT_DENSE_MAX_PIXELS', 'none')
    assert 'expected a positive integer' in run_tool('convert_dataset', *arguments, '--overwrite').error


def test_the_checker_leaves_pils_guard_as_it_is(tmp_path):
    (tmp_path / 'bomb.png').write_bytes(png_header(20_000, 20_000))
    assert files.read_facts((str(tmp_path / 'bomb.png'), False)).problem == 'oversized'
    assert Image.MAX_IMAGE_PIXELS is not None
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / 'bomb.png')


# ---- files outside the data folder

@pytest.mark.parametrize('name', ['../../secret.png', '{folder}/secret.png', 'images/../../../secret.png'])
def test_file_names_that_lead_outside_are_refused(name, tmp_path):
    write_png(tmp_path / 'secret.png', 77)
    name = name.format(folder=tmp_path)
    images = [{'id': 1, 'file_name': '1.png', 'width': 8, 'height': 8},
              {'id': 2, 'file_name': name, 'width': 8, 'height': 8}]
    source = coco_folder(tmp_path / 'data', images=images)
    error = run_tool('convert_dataset', source, tmp_path / 'out', '--from', 'coco').error
    assert 'secret.png' in error and f'of image 2 leads outside {source}' in error and not (tmp_path / 'out').exists()
    findings = check_dataset(targets_of_path(source), 0)
    assert [finding.value for finding in findings if finding.code == 'image-outside'] == [name]
    assert findings.checked['images'] == 1  # the other one was not read
    repair(targets_of_path(source), findings, tmp_path / 'fixed')
    assert [image['id'] for image in json.loads((tmp_path / 'fixed/all.json').read_text())['images']] == [1]


def test_file_names_that_lead_back_inside_are_fine(tmp_path):
    images = [{'id': n, 'file_name': name, 'width': 8, 'height': 8}
              for n, name in ((1, '../images/1.png'), (2, str(tmp_path / 'data/images/2.png')))]
    source = coco_folder(tmp_path / 'data', images=images)
    convert(source, tmp_path / 'out', '--from', 'coco')
    assert sum(split.images for split in DatasetInfo.read(tmp_path / 'out').splits.values()) == 2


# ---- processes that die

def killed(job):
    if job[0].endswith('7.png'):
        os.kill(os.getpid(), signal.SIGKILL)
    return files.FileFacts('missing')


def test_a_killed_worker_is_one_sentence(monkeypatch):
    """With multiprocessing.Pool, the check waits for ever."""
    monkeypatch.setattr(files, 'read_facts', killed)
    start = time.monotonic()
    with pytest.raises(UserError, match='a process that reads images was killed.+png.+--workers 0'):
        list(files.read_all([(f'{number}.png', False) for number in range(100)], 2))
    assert time.monotonic() - start < 60


def test_pipes_are_not_read(tmp_path):
    os.mkfifo(tmp_path / 'pipe.jpg')
    assert files.read_facts((str(tmp_path / 'pipe.jpg'), False)).problem == 'missing'
    assert files.read_facts(('zero\0byte.jpg', False)).problem == 'missing'


# ---- size

def test_repair_of_repeated_ids_is_not_quadratic(tmp_path):
    """40,000 annotations with one id; looking for the largest id at each took minutes."""
    count = 40_000
    annotations = [{'id': 5, 'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 2 + i / count, 2], 'area': 4, 'iscrowd': 0}
                   for i in range(count)]
    annotations.append({**annotations[0], 'id': 9, 'bbox': [1, 1, 1.5, 2], 'area': 3})
    source = coco_folder(tmp_path / 'data', annotations=annotations)
    target = CocoTarget('train', source / 'annotations/all.json', source / 'images')
    start = time.process_time()
    repair([target], Findings(), tmp_path / 'fixed')
    seconds = time.process_time() - start
    fixed = json.loads((tmp_path / 'fixed/all.json').read_text())['annotations']
    assert [annotation['id'] for annotation in fixed] == [5, *range(10, 10 + count - 1), 9]
    print(f'{count} repeated ids repaired in {seconds:.1f} s')
    assert seconds < 20


def test_many_categories_are_quick(tmp_path):
    categories = [{'id': number, 'name': f'name {number}'} for number in range(30_000)]
    source = coco_folder(tmp_path / 'data', categories=categories)
    start = time.process_time()
    assert run_tool('convert_dataset', source, tmp_path / 'out', '--from', 'coco').code == 0
    check_dataset(targets_of_path(source), 0)
    assert time.process_time() - start < 15


YOLO_BOMB = 'a: &a [x, x, x, x, x, x, x, x, x]\n' + ''.join(
    f'{chr(98 + i)}: &{chr(98 + i)} [{", ".join(["*" + chr(97 + i)] * 9)}]\n' for i in range(9)) + 'names: *j\n'


@pytest.mark.parametrize('content, expected', [
    (YOLO_BOMB, 'it has an alias'),
    ('names:\n' + ''.join(f'  {i}: class number {i}\n' for i in range(200_000)), 'more than 1,048,576 bytes'),
    ('names: ' + '[' * 5000 + ']' * 5000, 'could not be read'),
    ('names: ' + '[' * 30 + ']' * 30, 'nested more than 20'),
    ('names: person\ntrain: images\n', "its names are 'person'"), ('names: [a, [b]]\n', 'its names are'),
    ('names: {1: a, 2: b}\n', 'not 0 to 1'), ('names: {a: 0}\n', 'not 0 to 0'), ('names: [a\n', 'could not be read'),
    ('names: [a]\ntrain: {a: 1}\n', 'train is'), ('names: [a]\npath: [1]\ntrain: x\n', 'train is'),
    ('names: ["a\\nb"]\ntrain: images\n', 'line break'), ('- names\n', "it is ['names']"),
    ('names: [a]\x00', 'could not be read')])
def test_yaml_that_is_no_data_yaml(content, expected, tmp_path):
    write_png(tmp_path / 'y/images/0.png', 1)
    write_png(tmp_path / 'y/images/1.png', 1)
    (tmp_path / 'y/labels').mkdir()
    (tmp_path / 'y/labels/0.txt').write_text('0 0.5 0.5 0.5 0.5')
    (tmp_path / 'y/data.yaml').write_text(content)
    start = time.process_time()
    error = run_tool('convert_dataset', tmp_path / 'y/data.yaml', tmp_path / 'out', '--from', 'yolo').error
    assert expected in error and 'data.yaml' in error or 'rename it' in error
    run_tool('convert_dataset', tmp_path / 'y', tmp_path / 'out')  # looks into every yaml file to find the format
    assert time.process_time() - start < 10


# ---- json with other things in it

DEEP = '[' * 100_000 + ']' * 100_000


@pytest.mark.parametrize('key, value, expected', [
    ('images', None, 'lists no images'), ('images', [None, 3, 'a', [1], {}], 'lists no images'),
    ('images', [{'id': 'a', 'file_name': '1.png'}], "none of its 2 annotations is of one of its images: image_id is 1"),
    ('images', [{'id': 1, 'file_name': None}], 'lists no images'),
    ('images', [{'id': 10**30, 'file_name': '1.png'}], 'lists no images'),
    ('images', [{'id': 1, 'file_name': '\0.png'}], '--images'),
    ('categories', None, 'category None'), ('categories', [[1]], 'category [1]'), ('categories', [], 'no categories'),
    ('categories', [{'id': None, 'name': 'a'}], 'integer id'), ('categories', [{'id': 1, 'name': ['a']}], 'integer id'),
    ('categories', [{'id': 1}], 'integer id'), ('categories', [{'id': 1, 'name': 'a'}, {'id': 1, 'name': 'b'}],
                                               'two categories with the id 1'),
    ('categories', [{'id': 1, 'name': 'a\nb'}], 'line break'), ('categories', [{'id': 1, 'name': ''}], 'empty')])
def test_malformed_coco_is_one_sentence(key, value, expected, tmp_path):
    source = coco_folder(tmp_path / 'data', **{key: value})
    assert expected in run_tool('convert_dataset', source, tmp_path / 'out', '--from', 'coco').error
    checked = run_tool('check_dataset', source, '--workers', 0)
    assert checked.code in (3, 4) or 'line break' in expected or 'empty' in expected
    assert all(line.isprintable() for line in checked.out.splitlines())


def test_a_class_name_with_a_line_break_stays_on_one_line(tmp_path):
    source = coco_folder(tmp_path / 'data', categories=[{'id': 1, 'name': 'a\nerror: b\x1b[2J'}])
    out = run_tool('check_dataset', source, '--workers', 0).out
    assert 'category-name (1)' in out
    assert r'a\nerror: b\x1b[2J' in out and '\x1b' not in out


@pytest.mark.parametrize('value', [None, [], {}, 'x', 3, [[]], {'id': []}, {'image_id': 1, 'category_id': []},
                                   {'id': 3, 'image_id': 1, 'category_id': 1, 'bbox': None},
                                   {'id': 3, 'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 10**400, 1]},
                                   {'id': 3, 'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 2, 2], 'area': [],
                                    'segmentation': {'size': None, 'counts': [None]}},
                                   {'id': 10**30, 'image_id': 10**30, 'category_id': 1, 'bbox': [1, 1, 2, 2]}])
def test_malformed_annotations_are_left_out_or_reported(value, tmp_path):
    good = [{'id': n, 'image_id': n, 'category_id': 1, 'bbox': [1, 1, 4, 4], 'area': 16, 'iscrowd': 0} for n in (1, 2)]
    source = coco_folder(tmp_path / 'data', annotations=[value, *good])
    assert run_tool('convert_dataset', source, tmp_path / 'out', '--from', 'coco').code in (0, LOSSES)
    checked = run_tool('check_dataset', source, '--workers', 0, '--fix', tmp_path / 'fixed')
    assert checked.code == 4
    assert [a['id'] for a in json.loads((tmp_path / 'fixed/all.json').read_text())['annotations']] == [1, 2]


@pytest.mark.parametrize('key', ['images', 'annotations', 'categories', 'info'])
def test_deeply_nested_json_is_one_sentence(key, tmp_path):
    source = coco_folder(tmp_path / 'data')
    text = (source / 'annotations/all.json').read_text()
    (source / 'annotations/all.json').write_text(f'{text[:-1]}, "{key}": {DEEP}}}')
    assert 'nested too deep' in run_tool('convert_dataset', source, tmp_path / 'out', '--from', 'coco').error
    checked = run_tool('check_dataset', source, '--workers', 0)
    assert checked.code == 4 and 'json-broken' in checked.out


def test_sizes_that_are_no_numbers_are_those_of_the_files(tmp_path):
    images = [{'id': n, 'file_name': f'{n}.png', 'width': None, 'height': 'x'} for n in (1, 2)]
    convert(coco_folder(tmp_path / 'data', images=images), tmp_path / 'out', '--from', 'coco')
    for split in ('train', 'val'):
        coco = COCO(tmp_path / f'out/annotations/instances_{split}.json')
        assert [(image['width'], image['height']) for image in coco.imgs.values()] == [(8, 8)]


@pytest.mark.parametrize('content', ['3', '{"a": {}}', '[{"id": 1}]', '[[1]]', '[{"name": 3}]', DEEP,
                                     '{"a": [1, 2, 1e999]}', '{"a": 70000}', '{"a": -1}',
                                     '[{"name": "a", "id": 1e999}]'])
def test_class_lists_that_are_none(content, tmp_path):
    source = small_pairs(tmp_path / 'source', [np.eye(8, dtype=np.uint8)] * 3)
    (tmp_path / 'list.json').write_text(content)
    error = run_tool('convert_dataset', source, tmp_path / 'out', '--from', 'label-pngs', '--classes',
                     tmp_path / 'list.json').error
    assert 'list.json could not be read' in error or 'expected ids from 0 to 65535' in error


@pytest.mark.parametrize('content', ['3', '[]', '{"1": 3}', '{"1": "a", "2": {"1": "b"}}', '{"a": {"1": null}}', DEEP])
def test_class_maps_that_are_none(content, tmp_path):
    source = small_pairs(tmp_path / 'source', [np.eye(8, dtype=np.uint8)] * 3)
    (tmp_path / 'map.json').write_text(content)
    assert 'map.json could not be read' in run_tool('convert_dataset', source, tmp_path / 'out', '--from',
                                                    'instance-masks', '--class-map', tmp_path / 'map.json').error


def test_masks_that_cannot_be_read_are_left_out(tmp_path):
    source = small_pairs(tmp_path / 'source', [np.eye(8, dtype=np.uint8)] * 4)
    (source / 'masks/1.png').write_bytes(b'no image')
    finished = convert(source, tmp_path / 'out', '--from', 'label-pngs', '--classes', 'ground,line', status=LOSSES)
    assert 'left out: 1 x annotation or mask cannot be read' in finished.out and '1.png' in finished.out


def test_repaired_label_maps_keep_their_folders(tmp_path):
    for name, value in (('camel', 3), ('bear', 9)):
        write_png(tmp_path / f'data/images/train/{name}/0.png', value)
        write_png(tmp_path / f'data/annotations/train/{name}/0.png', value)
    targets = targets_of_path(tmp_path / 'data')
    repair(targets, check_dataset(targets, 0), tmp_path / 'fixed')
    for name, value in (('camel', 3), ('bear', 9)):
        assert np.asarray(Image.open(tmp_path / f'fixed/annotations/train/{name}/0.png'))[0, 0] == value
