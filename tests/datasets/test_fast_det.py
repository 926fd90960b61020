"""Our transforms for mmdet's pipelines return what mmdet's own do, bit for bit."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from samples import Pair

from convnext_dense.datasets.transforms import stock_pipeline
from convnext_dense.errors import UserError

LOAD = [dict(type='LoadImageFromFile'), dict(type='FastLoadAnnotations', with_bbox=True, with_mask=True)]
PACK = dict(type='FastPackDetInputs')
CROP = dict(type='RandomCrop', crop_type='absolute_range', crop_size=(20, 40), allow_negative_crop=True)
DIRECTIONS = ['horizontal', 'vertical', 'diagonal']
FLIP = dict(type='FastRandomFlip', prob=[0.3, 0.3, 0.3], direction=DIRECTIONS)
PIPELINES = {
    'resize, crop, resize, flip': [
        *LOAD, dict(type='RandomChoiceResize', scales=[(40, 90), (60, 60), (31, 500)], keep_ratio=True), CROP,
        dict(type='RandomResize', scale=(60, 70), ratio_range=(0.3, 2.0), keep_ratio=True), FLIP, PACK],
    'flip first': [*LOAD, FLIP, dict(type='Resize', scale=(70, 50), keep_ratio=False), CROP, PACK],
    'boxes from masks, filtered, padded': [
        *LOAD, dict(type='RandomResize', scale=(60, 60), ratio_range=(0.1, 2.0), keep_ratio=True),
        dict(type='RandomCrop', crop_type='absolute', crop_size=(48, 48), recompute_bbox=True,
             allow_negative_crop=True),
        dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)), FLIP, dict(type='Pad', size=(50, 50)), PACK],
    'filtered by mask': [
        *LOAD, CROP, dict(type='FilterAnnotations', by_mask=True, min_gt_mask_area=4, keep_empty=False), PACK],
    'flipped twice, boxes between': [
        *LOAD, FLIP, dict(type='RandomCrop', crop_type='relative', crop_size=(0.7, 0.8), recompute_bbox=True,
                          allow_negative_crop=True), FLIP, PACK],
    'polygons': [LOAD[0], dict(LOAD[1], poly2mask=False), dict(type='Resize', scale=(70, 50), keep_ratio=True), PACK],
    'boxes only': [LOAD[0], dict(type='FastLoadAnnotations', with_bbox=True), FLIP, PACK],
    'float image': [dict(LOAD[0], to_float32=True), LOAD[1], FLIP, dict(type='PhotoMetricDistortion'), PACK],
    'gray image': [dict(LOAD[0], color_type='grayscale'), LOAD[1], FLIP, PACK],
    'transforms that need pixels': [
        *LOAD, FLIP, dict(type='Rotate', prob=1.0, level=3), CROP, FLIP, dict(type='ShearX', prob=1.0, level=2), PACK],
    'label map too': [LOAD[0], dict(LOAD[1], with_seg=True), FLIP,
                      dict(type='Resize', scale=(70, 50), keep_ratio=True), FLIP, CROP, PACK],
}


def encoded(mask: np.ndarray, compressed: bool) -> dict:
    """COCO's run-length code, as text or as a list of run lengths."""
    code = coco_mask.encode(np.asfortranarray(mask))
    if compressed:
        return dict(size=code['size'], counts=code['counts'].decode())
    flat = np.concatenate([[0], mask.ravel(order='F'), [1 - mask[-1, -1]]])
    return dict(size=code['size'], counts=np.diff(np.flatnonzero(np.diff(flat)), prepend=0).tolist())


def instance(mask: list | dict, box: list[float], label: int, crowd: bool = False) -> dict:
    return dict(mask=mask, bbox=box, bbox_label=label, ignore_flag=int(crowd))


def objects(rng: np.random.Generator, height: int, width: int) -> list[dict]:
    """Everything that an annotation file may have: parts, crowds, code of both kinds, and what is not valid."""
    def polygon(low, high) -> list[float]:
        return (rng.uniform(low, high, (int(rng.integers(3, 9)), 2)) * (width, height)).ravel().tolist()

    crowd = (rng.random((height, width)) < 0.3).astype(np.uint8)
    whole, nothing = np.ones_like(crowd), np.zeros_like(crowd)
    box = [1.5, 2.25, width - 3.5, height - 1.0]
    return [instance([polygon(0, 1)], box, 0), instance([polygon(0, 0.4), polygon(0.5, 1.2)], box, 1),
            instance([polygon(-0.3, 0.6)], [0, 0, width / 2, height / 2], 2),
            instance([[5.0, 5.0, 6.0, 5.0, 6.0, 6.0, 5.0, 6.0]], [5, 5, 6, 6], 3),  # one pixel
            instance([[0.2, 0.2, 0.4, 0.2, 0.4, 0.4]], [0, 0, 1, 1], 4),  # less than one
            instance(encoded(crowd, True), box, 5, True), instance(encoded(crowd, False), box, 6, True),
            instance(encoded(whole, True), [0, 0, width, height], 7), instance(encoded(nothing, False), box, 8),
            instance([[1.0, 2.0, 3.0, 4.0]], box, 9), instance([polygon(0, 1), [1.0, 2.0, 3.0]], box, 10)]


def sample_infos(folder) -> list[dict]:
    """Images of different sizes with all objects, with one, and with none."""
    rng, infos = np.random.default_rng(0), []
    for number, (height, width) in enumerate([(60, 80), (33, 20), (90, 47), (64, 64)]):
        image, labels = folder / f'{number}.jpg', folder / f'{number}.png'
        cv2.imwrite(str(image), rng.integers(0, 256, (height, width, 3), np.uint8))
        cv2.imwrite(str(labels), rng.integers(0, 9, (height, width), np.uint8))
        found = objects(rng, height, width)
        for chosen in (found, found[3:4], []):
            infos.append(dict(img_path=str(image), seg_map_path=str(labels), img_id=number, height=height,
                              width=width, instances=chosen))
    return infos


@pytest.mark.parametrize('name', PIPELINES)
def test_equals_mmdet_on_generated_objects(name, tmp_path):
    pair = Pair('mmdet', stock_pipeline(PIPELINES[name]), PIPELINES[name])
    kept = 0
    for index, info in enumerate(sample_infos(tmp_path)):
        for seed in range(8):
            sample = pair.check(info, seed, f'{name}, image {index}, seed {seed}')
            kept += sample is not None and len(sample['data_samples'].gt_instances) > 0
    assert kept > 16


def test_a_stock_pipeline_keeps_mmdets_transforms():
    stock = Pair('mmdet', stock_pipeline(PIPELINES['flip first']), PIPELINES['flip first']).pipelines[0]
    assert {type(step).__module__.split('.')[0] for step in stock.transforms} == {'mmcv', 'mmdet'}


@pytest.mark.parametrize('change, sentence', [
    (dict(mask=None), r'an object of .*a\.jpg has no segmentation'),
    (dict(mask=dict(size=[9, 9], counts=[81])), r'a mask of .*a\.jpg is run-length code of 81 pixels for \(9, 9\)'),
    (dict(mask=dict(size=[6, 8], counts=[40])), 'is run-length code of 40 pixels'),
    (dict(mask=dict(size=[6, 8], counts='no code')), r'is run-length code of 0 pixels for \(6, 8\)'),
    (dict(mask=dict(size=[6, 8], counts='P' * 40)), r'is run-length code of 0 pixels for \(6, 8\)'),
    (dict(mask=dict(size=[6, 8], counts=[50, -2])), 'is run-length code of 0 pixels'),
    (dict(mask=dict(size=[6, 8], counts=['a', 48])), 'is run-length code of 0 pixels'),
])
def test_a_wrong_mask_is_named(change, sentence, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.jpg'), np.zeros((6, 8, 3), np.uint8))
    wrong = {key: value for key, value in (instance([], [0, 0, 8, 6], 0) | change).items() if value is not None}
    with pytest.raises(UserError, match=sentence):
        Pair('mmdet', LOAD, LOAD).pipelines[1](dict(img_path=str(tmp_path / 'a.jpg'), instances=[wrong]))


@pytest.mark.parametrize('steps, key', [(LOAD[1:], 'ori_shape'), ([dict(type='FastRandomFlip', prob=1.0)], 'img')])
def test_a_missing_key_is_named(steps, key):
    with pytest.raises(UserError, match=f"Fast.* finds no '{key}' in the sample of a.jpg"):
        Pair('mmdet', steps, steps).pipelines[1](dict(img_path='a.jpg', instances=[]))
