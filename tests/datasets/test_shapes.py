"""The generated data set: the same bytes again, masks that agree in every form, and loading through mmdet and mmseg."""
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from convnext_dense.datasets.shapes import ShapesParams, generate_shapes, scene_of
from convnext_dense.datasets.shapes_render import CLASSES, MIN_VISIBLE, SEG_CLASSES
from convnext_dense.errors import UserError

PARAMS = ShapesParams(seed=3, train=12, val=5, size=96)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('shapes') / 'data'
    assert generate_shapes(folder, PARAMS)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(folder.rglob('*')) if file.is_file()}


def ade_labels(root: Path, split: str, image_id: int) -> np.ndarray:
    folder = {'train': 'training', 'val': 'validation'}[split]
    file = root / f'ade/annotations/{folder}/ADE_{split}_{image_id:08d}.png'
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED)


def test_same_parameters_give_the_same_bytes(root, tmp_path):
    generate_shapes(tmp_path / 'again', PARAMS)
    assert digests(tmp_path / 'again') == digests(root)


def test_another_seed_gives_other_images(root, tmp_path):
    generate_shapes(tmp_path / 'other', ShapesParams(seed=4, train=12, val=5, size=96))
    ours, other = digests(root), digests(tmp_path / 'other')
    assert ours.keys() == other.keys()
    assert not [name for name in ours if ours[name] == other[name]]


def test_an_image_does_not_depend_on_how_many_there_are(root, tmp_path):
    generate_shapes(tmp_path / 'fewer', ShapesParams(seed=3, train=2, val=1, size=96))
    for file in (tmp_path / 'fewer').rglob('*.*g'):  # jpg and png
        assert file.read_bytes() == (root / file.relative_to(tmp_path / 'fewer')).read_bytes()


@pytest.mark.parametrize('split', ['train', 'val'])
def test_coco_masks_label_map_and_scene_agree(root, split):
    coco = COCO(root / f'coco/annotations/instances_{split}2017.json')
    assert len(coco.imgs) == PARAMS.count(split)
    for image_id in coco.imgs:
        scene = scene_of(PARAMS, split, image_id - 1)
        annotations = coco.imgToAnns[image_id]
        assert len(annotations) == len(scene.labels) >= 1
        labels = np.full(scene.image.shape[:2], 1, np.uint8)
        for annotation, shape_class, visible in zip(annotations, scene.labels, scene.masks, strict=True):
            mask = coco.annToMask(annotation).astype(bool)
            np.testing.assert_array_equal(mask, visible)
            assert coco.cats[annotation['category_id']]['name'] == CLASSES[shape_class]
            rows, columns = np.nonzero(mask)
            assert annotation['bbox'] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation['area'] == len(rows) == coco_mask.area(coco.annToRLE(annotation))
            labels[mask] = 1 + annotation['category_id']
        np.testing.assert_array_equal(ade_labels(root, split, image_id), labels)


def test_masks_are_the_shapes_that_their_class_says():
    """Isolated whole shapes have the roundness 4 pi area / perimeter^2 of their class, known in closed form."""
    roundness = {'circle': 1.0, 'square': np.pi / 4, 'triangle': np.pi / 27**0.5}
    seen = dict.fromkeys(CLASSES, 0)
    for index in range(40):
        scene = scene_of(ShapesParams(size=256), 'train', index)
        for number, (label, mask) in enumerate(zip(scene.labels, scene.masks, strict=True)):
            others = np.delete(scene.masks, number, axis=0).any(axis=0)
            around = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            at_border = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
            if at_border or (around & others).any():
                continue
            contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            outline = cv2.approxPolyDP(cv2.convexHull(contours[0]), 1.5, True)
            measured = 4 * np.pi * cv2.contourArea(outline) / cv2.arcLength(outline, True)**2
            assert measured == pytest.approx(roundness[CLASSES[label]], abs=0.06)
            seen[CLASSES[label]] += 1
    assert min(seen.values()) >= 5


def test_image_shows_what_the_masks_say():
    """Colours inside a mask differ from the background's, on the pixels of the mask and not beside them."""
    scene = scene_of(ShapesParams(size=128), 'train', 0)
    background = ~scene.masks.any(axis=0)
    for mask in scene.masks:
        inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
        gap = np.linalg.norm(scene.image[inner].mean(axis=0) - scene.image[background].astype(float), axis=1)
        assert np.median(gap) > 50


def test_shapes_overlap_and_stay_visible():
    overlaps = 0
    for index in range(30):
        masks = scene_of(ShapesParams(), 'train', index).masks
        assert masks.sum(axis=0).max() == 1  # visible parts only
        areas = masks.sum(axis=(1, 2))
        assert areas.min() > MIN_VISIBLE * 0.5 * (0.12 * 128)**2
        grown = [cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) for mask in masks]
        overlaps += any((a & b).any() for i, a in enumerate(grown) for b in grown[:i])
    assert overlaps > 10


def test_second_call_writes_nothing(root):
    before = {file: file.stat().st_mtime_ns for file in root.rglob('*')}
    assert generate_shapes(root, PARAMS) is False
    assert before == {file: file.stat().st_mtime_ns for file in root.rglob('*')}


def test_other_parameters_need_overwrite(tmp_path):
    small, other = ShapesParams(train=1, val=1, size=64), ShapesParams(train=2, val=1, size=64)
    generate_shapes(tmp_path / 'd', small)
    with pytest.raises(UserError, match='other parameters'):
        generate_shapes(tmp_path / 'd', other)
    assert generate_shapes(tmp_path / 'd', other, overwrite=True)
    assert len(list((tmp_path / 'd/coco/train2017').iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ['d']


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos/one.jpg').write_bytes(b'mine')
    with pytest.raises(UserError, match='not a shapes data set'):
        generate_shapes(tmp_path / 'photos', PARAMS, overwrite=True)
    assert (tmp_path / 'photos/one.jpg').read_bytes() == b'mine'


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(params, split, index):
        if index == 3:
            raise KeyboardInterrupt
        return scene_of(params, split, index)

    monkeypatch.setattr('convnext_dense.datasets.shapes.scene_of', interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate_shapes(tmp_path / 'd', PARAMS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('wrong', [{'seed': -1}, {'train': 0}, {'val': 1.5}, {'size': 16}])
def test_values_out_of_range_are_named(wrong):
    name = next(iter(wrong))
    with pytest.raises(UserError, match=f'{name} must be an integer'):
        ShapesParams(**wrong)


def test_loads_through_mmdet(root):
    pytest.importorskip('mmdet')
    from mmengine.registry import DATASETS, init_default_scope
    init_default_scope('mmdet')
    content = json.loads((root / 'coco/annotations/instances_train2017.json').read_text())
    dataset = DATASETS.build(dict(
        type='ShapesDetDataset', data_root=f'{root}/coco', ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                  dict(type='PackDetInputs', meta_keys=('img_id', 'img_path'))]))
    assert len(dataset) == PARAMS.train
    assert dataset.metainfo['classes'] == CLASSES
    assert sum(len(dataset.get_data_info(i)['instances']) for i in range(len(dataset))) == len(content['annotations'])
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        scene = scene_of(PARAMS, 'train', sample.img_id - 1)
        np.testing.assert_array_equal(sample.gt_instances.labels.numpy(), scene.labels)
        np.testing.assert_array_equal(sample.gt_instances.masks.masks.astype(bool), scene.masks)


def test_loads_through_mmseg(root):
    pytest.importorskip('mmseg')
    from mmengine.registry import DATASETS, init_default_scope
    init_default_scope('mmseg')
    dataset = DATASETS.build(dict(
        type='ShapesSegDataset', data_root=f'{root}/ade',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))
    assert len(dataset) == PARAMS.val
    assert dataset.metainfo['classes'] == SEG_CLASSES
    for index in range(len(dataset)):
        scene = scene_of(PARAMS, 'val', index)
        expected = np.zeros(scene.image.shape[:2], int)
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            expected[mask] = 1 + label
        np.testing.assert_array_equal(dataset[index]['data_samples'].gt_sem_seg.data[0].numpy(), expected)


def test_tiny_cells(tmp_path):
    """Many small objects, visible in the image, in the same formats."""
    params = ShapesParams(seed=1, train=2, val=1, size=128, kind='tiny')
    generate_shapes(tmp_path / 'd', params)
    coco = COCO(tmp_path / 'd/coco/annotations/instances_train2017.json')
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == ['cell']
    for image_id in coco.imgs:
        scene = scene_of(params, 'train', image_id - 1)
        assert 10 <= len(scene.masks) <= 22 and scene.masks.sum(axis=0).max() == 1
        found = coco.loadAnns(coco.getAnnIds(image_id))
        assert np.array_equal(np.stack([coco.annToMask(annotation) for annotation in found]), scene.masks)
        sides = np.array([annotation['bbox'][2:] for annotation in found])
        assert sides.max() <= 17 and np.median(sides) < 13
        grey = scene.image.mean(axis=2)
        assert all(grey[mask].mean() > grey[~scene.masks.any(axis=0)].mean() + 25 for mask in scene.masks)
        assert set(np.unique(ade_labels(tmp_path / 'd', 'train', image_id))) == {1, 2}
    with pytest.raises(UserError, match='kind must be one of shapes, tiny'):
        ShapesParams(kind='huge')
