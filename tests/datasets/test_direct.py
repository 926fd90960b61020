"""Folders of data used as they are: COCO where it is, other formats through links."""
import json
from pathlib import Path

import format_samples
import numpy as np
import pytest
from format_samples import CLASSES, SCENE
from test_formats import objects_in
from tool_runs import must_run, run_tool

from convnext_dense.cli import train
from convnext_dense.datasets.direct import describe_coco, open_dataset
from convnext_dense.datasets.layout import DatasetInfo
from convnext_dense.errors import UserError
from convnext_dense.projects import timing


def coco_folder(folder):
    """train and val of the scene, as COCO has them."""
    content = format_samples.coco_content()
    for split, numbers in (('train', (0, 1, 2)), ('val', (3,))):
        format_samples.write_images(folder / split)
        format_samples.write_json(folder / f'annotations/instances_{split}.json', {
            **content, 'images': [image for image in content['images'] if image['id'] in numbers],
            'annotations': [entry for entry in content['annotations'] if entry['image_id'] in numbers]})
    return folder


def test_coco_is_described_as_the_converter_would(tmp_path):
    source = coco_folder(tmp_path / 'coco')
    must_run('convert_dataset', source, tmp_path / 'out')
    info, expected = describe_coco(source), DatasetInfo.read(tmp_path / 'out')
    assert info == expected and info.classes == CLASSES
    root, again, _ = open_dataset(source, tmp_path / 'never')
    assert (root, again) == (source, info) and not (tmp_path / 'never').exists()
    assert open_dataset(tmp_path / 'out', tmp_path / 'never')[1] == expected


@pytest.mark.parametrize('change', ['ids as text', 'one split', 'other categories', 'missing image', 'two same names'])
def test_coco_that_has_to_be_converted_is_not_used_as_it_is(change, tmp_path):
    source = coco_folder(tmp_path / 'coco')
    file = source / 'annotations/instances_val.json'
    content = json.loads(file.read_text())
    if change == 'ids as text':
        content['annotations'][0]['image_id'] = '3'
    elif change == 'other categories':
        content['categories'] = content['categories'][:2]
    elif change == 'missing image':
        (source / 'val/last.png').unlink()
    elif change == 'two same names':
        content['categories'][0]['name'] = content['categories'][1]['name']
    file.write_text(json.dumps(content))
    if change == 'one split':
        file.unlink()
    assert describe_coco(source) is None


def test_yolo_is_linked(tmp_path):
    format_samples.yolo(tmp_path / 'yolo')
    (tmp_path / 'yolo/classes.txt').write_text('\n'.join(CLASSES), encoding='utf-8')
    root, info, notes = open_dataset(tmp_path / 'yolo', tmp_path / 'project/data')
    assert root == tmp_path / 'project/data' and info == DatasetInfo.read(root) and 'images linked' in notes[0]
    assert all(file.is_symlink() for file in root.glob('*/*.png'))
    found = objects_in(root)
    for stem, things in SCENE.items():
        for thing, (name, _, mask) in zip(things, found[stem], strict=True):
            assert name == thing.name
            np.testing.assert_array_equal(mask, thing.mask)
    (tmp_path / 'yolo/labels/last.txt').write_text('7 0.5 0.5 0.1 0.1\n')
    with pytest.raises(UserError, match='cannot be used as it is .class 7, expected 0 to 2.: convert it'):
        open_dataset(tmp_path / 'yolo', tmp_path / 'second')
    assert not (tmp_path / 'second').exists()


@pytest.mark.parametrize('form', ['coco', 'yolo'])
def test_the_tools_take_the_folder(form, tmp_path, monkeypatch):
    """The checker and new_project."""
    monkeypatch.setattr(timing, 'estimate', lambda *_: 'not measured here')
    if form == 'coco':
        coco_folder(tmp_path / form)
    else:
        format_samples.yolo(tmp_path / form)
        (tmp_path / form / 'classes.txt').write_text('\n'.join(CLASSES), encoding='utf-8')
    checked = run_tool('check_dataset', tmp_path / form, '--workers', 0)
    assert checked.code == 0 and '6 annotations' in checked.out, checked.out
    options = ('--start', 'random', '--image-size', 64, '--batch-size', 1, '--epochs', 1, '--device', 'cpu')
    must_run('new_project', tmp_path / 'project', '--data', tmp_path / form, *options)
    assert run_tool('check_dataset', tmp_path / 'project/config.py', '--workers', 0).code == 0
    assert (tmp_path / 'project/data').is_dir() == (form == 'yolo')


@pytest.mark.slow
def test_train_takes_a_folder(tmp_path, monkeypatch):
    """The first call writes the project and trains it, the second would use it again."""
    coco_folder(tmp_path / 'animals')
    options = ('--device', 'cpu', '--cfg-options', 'load_from=None', 'model.backbone.init_cfg=None',
               'train_cfg.max_epochs=1', 'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0')
    first = must_run('train', 'animals', *options, cwd=tmp_path)
    text = (tmp_path / 'work_dirs/animals/config.py').read_text()
    assert 'written with the defaults of new_project' in first.out and (tmp_path / 'work_dirs/animals/run').is_dir()
    monkeypatch.chdir(tmp_path)
    assert train.project_config(Path('animals'), train.parse_args(['animals'])) == 'work_dirs/animals/config.py'
    assert (tmp_path / 'work_dirs/animals/config.py').read_text() == text
