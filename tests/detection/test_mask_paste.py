"""Masks pasted on a CPU are mmdet's, bit by bit."""
import json
import warnings

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import FCNMaskHead
from mmengine.config import ConfigDict

from convnext_dense.detection.float32_heads import Float32FCNMaskHead
from convnext_dense.detection.mask_paste import paste_masks

CONFIG = ConfigDict(mask_thr_binary=0.5)


def both(logits, boxes, labels, meta, config=CONFIG, rescale=True, **options):
    """Masks, and boxes afterwards, of mmdet's head and of ours."""
    results = []
    for kind in (FCNMaskHead, Float32FCNMaskHead):
        head = kind(num_classes=logits.shape[1], num_convs=0, **options)
        own = boxes.clone()
        results.append((head._predict_by_feat_single(logits, own, labels, meta, config, rescale), own))
    return results


def smooth_logits(number, classes, generator):
    """Blobs, as a trained head gives them."""
    small = torch.randn(number, classes, 6, 6, generator=generator)
    return 4 * torch.nn.functional.interpolate(small, size=(28, 28), mode='bicubic')


def made_boxes(number, size, generator):
    """Boxes of all sizes, some of them across the border of the image, some without extent."""
    height, width = size
    corners = torch.rand(number, 2, generator=generator) * torch.tensor([width, height]) * 0.95
    extents = torch.rand(number, 2, generator=generator) ** 3 * torch.tensor([width, height])
    boxes = torch.cat([corners, corners + extents], 1)
    boxes[0::7, 2:] = boxes[0::7, 2:].min(torch.tensor([width, height]))
    boxes[1::7, :2] -= 9
    boxes[2::7, 2] = boxes[2::7, 0]  # no width
    boxes[3::7] = boxes[3::7].round()
    return boxes


@pytest.mark.parametrize('rescale', [True, False])
@pytest.mark.parametrize('class_agnostic', [True, False])
def test_masks_are_mmdets(rescale, class_agnostic):
    generator = torch.Generator().manual_seed(0)
    for size, factor in (((60, 91), (1.0, 1.0)), ((147, 100), (1.667, 1.6632653)), ((33, 250), (0.5, 0.515))):
        logits = smooth_logits(35, 1 if class_agnostic else 4, generator)
        boxes = made_boxes(35, size, generator) * torch.tensor(factor).repeat(2)
        if not rescale:
            boxes = boxes.clamp(min=0)
        labels = torch.randint(1 if class_agnostic else 4, (35,), generator=generator)
        meta = dict(ori_shape=size, scale_factor=factor)
        (expected, expected_boxes), (found, own) = both(logits, boxes, labels, meta, rescale=rescale,
                                                        class_agnostic=class_agnostic)
        assert found.dtype == torch.bool and torch.equal(found, expected) and torch.equal(own, expected_boxes)
        assert 0 < found.float().mean() < 0.5


@pytest.mark.slow
def test_masks_of_all_annotated_objects_are_mmdets(coco_objects):
    """Boxes of the real subset, moved off their whole numbers, at the images' sizes."""
    generator = torch.Generator().manual_seed(1)
    ones = 0
    for size, boxes in coco_objects:
        boxes = boxes + torch.rand(boxes.shape, generator=generator)
        logits = smooth_logits(len(boxes), 1, generator)
        meta = dict(ori_shape=size, scale_factor=(1.0, 1.0))
        (expected, _), (found, _) = both(logits, boxes, torch.zeros(len(boxes), dtype=torch.long), meta)
        assert torch.equal(found, expected)
        ones += int(found.sum())
    assert ones > 1e6


@pytest.fixture
def coco_objects(real_data):
    content = json.loads((real_data / 'coco/annotations/instances_val2017.json').read_text())
    images = []
    for image in content['images']:
        boxes = [a['bbox'] for a in content['annotations'] if a['image_id'] == image['id']]
        if boxes:
            boxes = torch.tensor(boxes)
            boxes[:, 2:] += boxes[:, :2]
            images.append(((image['height'], image['width']), boxes))
    return images


def test_boxes_beyond_the_image_have_empty_masks():
    """mmdet raises on a CPU."""
    boxes = torch.tensor([[-50.0, -50, -20, -20], [200, 5, 260, 20], [2, 2, 20, 20]])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        masks = paste_masks(torch.ones(3, 1, 28, 28), boxes, (40, 50), 0.5)
    assert [int(mask.sum()) for mask in masks] == [0, 0, 18 * 18]
    assert np.array_equal(np.argwhere(masks[2].numpy())[[0, -1]], [[2, 2], [19, 19]])


def test_debugging_thresholds_are_mmdets():
    generator = torch.Generator().manual_seed(0)
    boxes = made_boxes(7, (60, 91), generator)
    (expected, _), (found, _) = both(smooth_logits(7, 1, generator), boxes, torch.zeros(7, dtype=torch.long),
                                     dict(ori_shape=(60, 91), scale_factor=(1.0, 1.0)),
                                     ConfigDict(mask_thr_binary=-1))
    assert found.dtype == torch.uint8 and torch.equal(found, expected)
