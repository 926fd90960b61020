"""The split keeps shares, the class lists of all forms are read, and names stay unique."""
from pathlib import Path

import numpy as np
import pytest

from convnext_dense.datasets.convert.class_files import ClassEntry, read_classes, split_ignored
from convnext_dense.datasets.convert.planning import _unique_names
from convnext_dense.datasets.convert.source import Sample
from convnext_dense.datasets.convert.splitting import stratified_split
from convnext_dense.errors import UserError


def test_every_class_keeps_its_share():
    rng = np.random.default_rng(0)
    rates = 0.6 * 0.75**np.arange(20)  # from most images down to a few
    labels = [set(np.flatnonzero(rng.random(20) < rates).tolist()) for _ in range(1000)]
    splits = np.array(stratified_split(labels, 0.8, 0))
    worst = 0.0
    for label in range(20):
        has = np.array([label in classes for classes in labels])
        if has.sum() >= 2:
            assert {'train', 'val'} == set(splits[has])
        worst = max(worst, abs((splits[has] == 'train').sum() - 0.8 * has.sum()))
    print(f'furthest from 80% of a class: {worst:.1f} images; {np.mean(splits == "train"):.3f} of all are for training')
    assert worst <= 3 and abs(np.mean(splits == 'train') - 0.8) < 0.005


def test_split_is_seeded():
    labels = [{index % 3} for index in range(60)]
    first = stratified_split(labels, 0.8, 1)
    assert first == stratified_split(labels, 0.8, 1) != stratified_split(labels, 0.8, 2)


@pytest.mark.parametrize('labels', [[{0}, {0}], [set(), set()], [{0}, {1}], [{0, 1}, set()]])
def test_two_images_give_one_each(labels):
    assert sorted(stratified_split(labels, 0.8, 0)) == ['train', 'val']


def test_impossible_splits_are_named():
    with pytest.raises(UserError, match='at least 2'):
        stratified_split([{0}], 0.8, 0)
    with pytest.raises(UserError, match='between 0 and 1'):
        stratified_split([{0}, {0}], 1.0, 0)


RED_CAR = [ClassEntry('car', 0, (255, 0, 0)), ClassEntry('wet road', 1, (0, 9, 0))]


@pytest.mark.parametrize('name, content, expected', [
    ('a.txt', 'car\nwet road\n', [ClassEntry('car', 0), ClassEntry('wet road', 1)]),
    ('a.txt', '# mine\n7 car\n\n3, wet road\n', [ClassEntry('car', 7), ClassEntry('wet road', 3)]),
    ('a.txt', '255 0 0\tcar\n0 9 0\twet road\n', RED_CAR),
    ('a.csv', 'name,r,g,b\ncar,255,0,0\nwet road,0,9,0\n', RED_CAR),
    ('a.txt', '5 car 255 0 0\n6 wet road 0 9 0\n',
     [ClassEntry('car', 5, (255, 0, 0)), ClassEntry('wet road', 6, (0, 9, 0))]),
    ('a.json', '["car", "wet road"]', [ClassEntry('car', 0), ClassEntry('wet road', 1)]),
    ('a.json', '{"car": [255, 0, 0], "wet road": [0, 9, 0]}', RED_CAR),
    ('a.json', '{"4": "car"}', [ClassEntry('car', 4)]),
    ('a.json', '{"car": 4}', [ClassEntry('car', 4)]),
    ('a.json', '[{"name": "car", "id": 4, "color": [1, 2, 3]}]', [ClassEntry('car', 4, (1, 2, 3))]),
])
def test_class_lists_are_read(name, content, expected, tmp_path):
    (tmp_path / name).write_text(content)
    assert read_classes(str(tmp_path / name), tmp_path) == expected


@pytest.mark.parametrize('name, content', [('a.txt', '1 2 3\n'), ('a.txt', 'car 1 2 999\n'), ('a.json', '{"a": [1]}'),
                                           ('a.json', '{'), ('a.txt', '1 2 car\n'), ('a.txt', '')])
def test_bad_class_lists_are_named(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=name):
        read_classes(str(tmp_path / name), tmp_path)


def test_ignored_classes():
    entries = [ClassEntry('road', 0), ClassEntry('Void', 5), ClassEntry('sky', 7)]
    assert split_ignored(entries, ()) == ([entries[0], entries[2]], [entries[1]])
    assert split_ignored(entries, ('7',)) == (entries[:2], [entries[2]])
    assert split_ignored(entries, ('road',)) == (entries[1:], [entries[0]])


def test_names_are_unique_on_any_file_system():
    files = ['train/a.jpg', 'val/a.jpg', 'val/A.png', 'val/b.jpg', 'other/val/a.jpg']
    names = _unique_names([Sample(Path(file), load=None) for file in files])
    assert names[3] == 'b' and names[:2] == ['train-a', 'val-a']
    assert len({name.casefold() for name in names}) == 5
