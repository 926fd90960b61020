"""Annotations in an index on disk: the samples are those of mmdet's CocoDataset, and bad files are refused."""
import copy
import json
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets import CocoDataset

from convnext_dense.config.data_files import _files, check_files
from convnext_dense.datasets import coco_index
from convnext_dense.datasets.coco import FastCocoDataset
from convnext_dense.datasets.coco_index import open_index
from convnext_dense.errors import UserError

CLASSES = ('cat', 'naïve "dog"', 'x')


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv('CONVNEXT_DENSE_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache/annotations'


def content(seed: int = 0, text_ids: bool = False) -> dict:
    """Annotations with everything that mmdet filters, and in an order that the format allows."""
    generator = np.random.default_rng(seed)

    def name(number: int):
        return f'id {number}' if text_ids else number

    images = [dict(id=name(number), file_name=f'fotos/ä {number}.jpg', height=int(generator.integers(20, 60)),
                   width=40.0 if number == 3 else 40) for number in generator.permutation(12).tolist()]
    images.append(dict(images[2], width=77))  # the same id again: the last entry counts
    categories = [dict(id=name(number), name=label) for number, label in ((7, 'x'), (3, 'cat'), (5, CLASSES[1]))]
    segmentations = [[[1.5, 2, 9, 2, 9, 9.25]], {'size': [30, 40], 'counts': 'abc'}, {'size': [3, 4], 'counts': [12]},
                     []]
    annotations = []
    for number in range(60):
        annotations.append(dict(
            id=1000 - number, image_id=name(int(generator.integers(0, 14))),  # 12 and 13 are in no image
            category_id=name(int(generator.choice([3, 5, 7, 99]))), area=float(generator.choice([0, 5.5])),
            bbox=[int(generator.integers(-30, 50)), 2.5, float(generator.choice([0, 0.5, 20])), 12],
            iscrowd=int(generator.integers(0, 2))))
        if number % 3:
            annotations[-1] |= dict(segmentation=segmentations[number % 4])
        if number % 10 == 0:
            annotations[-1] |= dict(ignore=number % 20 == 0)
    return dict(annotations=annotations, info={'note': ['a', {'images': 1}]}, categories=categories, images=images)


def write(path: Path, data: dict, **options) -> Path:
    path.write_text(json.dumps(data, **options), encoding='utf-8')
    return path


def pair(file: Path, **options) -> tuple[CocoDataset, FastCocoDataset]:
    settings = dict(ann_file=str(file), data_prefix=dict(img='images/', seg='maps/'), pipeline=[],
                    metainfo=dict(classes=CLASSES), filter_cfg=dict(filter_empty_gt=True, min_size=25)) | options
    return CocoDataset(**copy.deepcopy(settings)), FastCocoDataset(**copy.deepcopy(settings))


def assert_same(ours, theirs) -> None:
    assert len(ours) == len(theirs) > 0
    assert ours.metainfo == theirs.metainfo and ours.cat2label == theirs.cat2label
    for index in [*range(len(ours)), -1]:
        assert ours.get_data_info(index) == theirs.get_data_info(index)
        assert ours.get_cat_ids(index) == theirs.get_cat_ids(index)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('options', [
    {}, dict(test_mode=True), dict(filter_cfg=None), dict(filter_cfg=dict(filter_empty_gt=True)),
    dict(metainfo=dict(classes=('x', 'cat'))), dict(metainfo=dict(classes=(CLASSES[1],))), dict(indices=4),
    dict(indices=[3, 0, 1]), dict(serialize_data=False), dict(lazy_init=True), dict(return_classes=True)], ids=str)
def test_samples_are_those_of_mmdet(tmp_path, seed, options):
    theirs, ours = pair(write(tmp_path / 'ann.json', content(seed)), **options)
    assert_same(ours, theirs)


@pytest.mark.parametrize('style', [dict(indent=3), dict(ensure_ascii=False, separators=(',', ':'))], ids=str)
@pytest.mark.parametrize('text_ids', [False, True])
def test_layouts_of_the_json_and_ids_that_are_text(tmp_path, style, text_ids):
    theirs, ours = pair(write(tmp_path / 'ann.json', content(1, text_ids), **style))
    assert_same(ours, theirs)


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('test_mode', [False, True])
def test_real_coco(real_data, split, test_mode):
    file = real_data / f'coco/annotations/instances_{split}2017.json'
    theirs, ours = pair(file, metainfo=None, test_mode=test_mode)
    assert_same(ours, theirs)


def test_subsets(tmp_path):
    theirs, ours = pair(write(tmp_path / 'ann.json', content()))
    for indices in (3, -2, [2, 0]):
        subset = ours.get_subset(indices)
        assert_same(subset, theirs.get_subset(indices))
        changed = copy.deepcopy(ours)
        changed.get_subset_(indices)
        assert_same(changed, subset)
    assert len(ours) == len(theirs)


def test_copies_open_the_files_again(tmp_path):
    """What spawned workers and get_subset receive has no annotations in it."""
    theirs, ours = pair(write(tmp_path / 'ann.json', content()))
    state = pickle.dumps(ours)
    assert len(state) < 4000 and 'fotos' not in str(state)
    assert_same(pickle.loads(state), theirs)


def test_files_of_a_sample_without_its_annotations(tmp_path):
    theirs, ours = pair(write(tmp_path / 'ann.json', content()))
    assert [_files(ours, index) for index in range(len(ours))] == [_files(theirs, index) for index in range(len(ours))]
    with pytest.raises(UserError, match='image images/.* of FastCocoDataset could not be read'):
        check_files(ours)


def _open(file: str, answers) -> None:
    builds = []
    build = coco_index._build
    coco_index._build = lambda *arguments: builds.append(1) or build(*arguments)
    answers.put((len(builds), len(open_index(file)), len(builds)))


def test_one_process_builds_and_the_others_wait(tmp_path):
    file, context = write(tmp_path / 'ann.json', content()), multiprocessing.get_context('fork')
    answers = context.Queue()
    processes = [context.Process(target=_open, args=(str(file), answers)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    assert sorted(found) == [(0, 12, 0)] * 3 + [(0, 12, 1)]


def test_built_again_when_the_content_changes_or_the_index_is_damaged(tmp_path, cache, caplog):
    file = write(tmp_path / 'ann.json', content())
    before = open_index(file).annotated(0)
    stamp = os.stat(file)
    changed = content()
    changed['images'][0]['file_name'] = changed['images'][0]['file_name'].replace('fotos', 'fotoz')
    write(file, changed)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size and time: only the content tells
    assert open_index(file).image(0)['file_name'] != before[0]['file_name']
    folders = sorted(path for path in cache.iterdir() if path.is_dir())
    assert len(folders) == 2
    for name, damage in (('text.json', b'[]'), ('first.npy', b''), ('categories.json', b'{'),
                         ('start.npy', b'\x93NUMPY')):
        for folder in folders:
            (folder / name).write_bytes(damage)
        assert open_index(file).image(0) == changed['images'][0]
    (folders[0] / 'sizes.npy').unlink()
    (folders[1] / 'sizes.npy').unlink()
    assert open_index(file).image(0) == changed['images'][0]


def test_an_index_never_runs_code(tmp_path, cache):
    """A pickle in the place of an array is refused, and the index built again."""
    file = write(tmp_path / 'ann.json', content())
    open_index(file)
    folder = next(path for path in cache.iterdir() if path.is_dir())
    np.save(folder / 'sizes.npy', np.array([Touch(tmp_path / 'ran')], object), allow_pickle=True)
    assert len(open_index(file)) == 12
    assert not (tmp_path / 'ran').exists()


class Touch:
    """Creates a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_changes_while_it_is_read(tmp_path, cache, monkeypatch):
    file = write(tmp_path / 'ann.json', content())
    entries = coco_index._Entries

    def slow(path):
        found = entries(path)
        path.write_text(path.read_text() + ' ')
        return found
    monkeypatch.setattr(coco_index, '_Entries', slow)
    with pytest.raises(UserError, match='ann.json changed while it was read: start again'):
        open_index(file)
    assert not [path for path in cache.iterdir() if path.is_dir()]


@pytest.mark.parametrize('where, key, value, message', [
    ('images', 'height', None, "entry .* of 'images' .* has the height None"),
    ('images', 'width', 0, 'has the width 0'),
    ('images', 'file_name', 7, 'has the file_name 7'),
    ('images', 'id', [1], r'has the id \[1\]'),
    ('annotations', 'bbox', [1, 2, 3], r'has the bbox \[1, 2, 3\]'),
    ('annotations', 'bbox', [1, 2, 3, float('nan')], 'has the bbox .*nan'),
    ('annotations', 'area', '5', "has the area '5'"),
    ('annotations', 'image_id', ..., "has no 'image_id'"),
    ('categories', 'name', ..., "has no 'name'"),
])
def test_bad_entries(tmp_path, where, key, value, message):
    data = content()
    entry = data[where][1]
    if value is ...:
        del entry[key]
    else:
        entry[key] = value
    with pytest.raises(UserError, match=message) as error:
        open_index(write(tmp_path / 'ann.json', data))
    assert 'ann.json' in str(error.value) and 'check_dataset.py' in str(error.value)


def test_bad_files(tmp_path, monkeypatch):
    data = content()
    data['annotations'][5]['id'] = data['annotations'][4]['id']
    with pytest.raises(UserError, match='two annotations have the id 996'):
        open_index(write(tmp_path / 'twice.json', data))
    for name, text, message in [('none.json', None, 'cannot be read'), ('cut.json', '{"images": [{"id"', 'cut off'),
                                ('list.json', '[1]', 'could not be read as JSON'), ('other.json', '{"images": []}',
                                                                                   'expected COCO annotations'),
                                ('text.json', '{"images": ["a"]}', 'is a str instead of an object')]:
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            open_index(tmp_path / name)
    (tmp_path / 'occupied').write_text('')
    monkeypatch.setenv('CONVNEXT_DENSE_CACHE', str(tmp_path / 'occupied'))
    with pytest.raises(UserError, match='index of .* cannot be written to .*occupied.*set CONVNEXT_DENSE_CACHE'):
        open_index(write(tmp_path / 'ann.json', content()))


def test_proposals_from_a_file_are_refused(tmp_path):
    with pytest.raises(UserError, match='FastCocoDataset has no proposal_file: use type="CocoDataset"'):
        FastCocoDataset(ann_file=str(write(tmp_path / 'ann.json', content())), pipeline=[], proposal_file='p.pkl')
