"""The count of what half precision does to RoIs: its parts against closed forms, its figures on real COCO boxes."""
import argparse
import json

import numpy as np
import pytest
import torch

from convnext_dense.benchmark import roi_rounding
from convnext_dense.errors import UserError


def rounded(boxes: torch.Tensor, step: float) -> torch.Tensor:
    return (boxes.double() / step).round() * step


def test_boxes_are_read_as_the_data_set_resizes_them(tmp_path):
    """A scale of 1333 / 2000 (the longer side decides) and of 800 / 400; crowds and slivers are no objects."""
    file = tmp_path / 'instances.json'
    annotations = [(7, [10, 20, 100, 50], 0), (9, [1, 2, 3, 4], 0), (7, [0, 0, 90, 90], 1), (9, [0, 0, 0, 9], 0)]
    file.write_text(json.dumps(dict(
        images=[dict(id=7, width=2000, height=500), dict(id=9, width=400, height=500)],
        categories=[dict(id=1, name='cat')],
        annotations=[dict(id=i, category_id=1, image_id=image, bbox=box, iscrowd=crowd, area=box[2] * box[3])
                     for i, (image, box, crowd) in enumerate(annotations, 1)])))
    boxes, images = roi_rounding.coco_boxes([file])
    expected = [np.array([10, 20, 110, 70]) * 1333 / 2000, np.array([1, 2, 4, 6]) * 2]
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    assert images.tolist() == [7, 9]


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match='benchmark rois: .*nowhere.json: no such file'):
        roi_rounding.coco_boxes([tmp_path / 'nowhere.json'])
    empty = tmp_path / 'empty.json'
    empty.write_text(json.dumps(dict(images=[], categories=[], annotations=[])))
    with pytest.raises(UserError, match='benchmark rois: no object in .*empty.json'):
        roi_rounding.coco_boxes([empty])


def test_figures_of_mmdets_extractor_are_those_of_the_number_formats():
    """fp16 has 11 significant bits (whole pixels from 1024 on), bf16 has 8 (multiples of 8 there)."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(1024, 1200, (500, 2))
    boxes = torch.from_numpy(np.concatenate([corners, corners + rng.uniform(8, 60, (500, 2))], 1)).float()
    for dtype, step in ((torch.float16, 1), (torch.bfloat16, 8)):
        _, reached = roi_rounding.reaching_roi_align('SingleRoIExtractor', boxes, dtype)
        assert torch.equal(reached.double(), rounded(boxes, step))
    # an area that fp16 holds and one that it does not: 250 px and 270 px, both of stride 16
    boxes = torch.tensor([[0., 0., 250., 250.], [0., 0., 270., 270.]])
    rows = roi_rounding.measure(boxes, np.array([1, 2]))
    assert [(row['dtype'], row['extractor'], row['wrong_boxes'], row['wrong_images']) for row in rows] == [
        ('fp16', 'mmdet', 0.5, 0.5), ('fp16', 'ours', 0, 0), ('bf16', 'mmdet', 0, 0), ('bf16', 'ours', 0, 0)]


def test_real_boxes_before_and_after(real_data, capsys):
    files = [real_data / f'coco/annotations/instances_{split}2017.json' for split in ('train', 'val')]
    rows, text = roi_rounding.run(argparse.Namespace(annotations=files))
    with capsys.disabled():
        print('\n' + text)
    before, after = ({row['dtype']: row for row in rows if row['extractor'] == whose} for whose in ('mmdet', 'ours'))
    for row in after.values():
        assert row['wrong_boxes'] == row['wrong_images'] == 0
        assert row['iou'].keys() == set(roi_rounding.SIZES)
        assert row['iou'] == pytest.approx(dict.fromkeys(row['iou'], 1.0), abs=1e-12)
    assert before['fp16']['wrong_boxes'] > 0.05 and before['fp16']['wrong_images'] > 0.5
    assert before['bf16']['iou'][8] < 0.8 < before['fp16']['iou'][8] < 0.99
