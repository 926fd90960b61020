"""The plain graph of two-stage detectors: what mmdet's own prediction gives, on real images."""
import json

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from tiny_detectors import tiny_detector, tiny_detector_config

from convnext_dense.detection.boxes import best, decode_boxes, nms_mask
from convnext_dense.detection.plain import PlainDetector
from convnext_dense.errors import UserError


def tiny(kind: str, **rcnn):
    return tiny_detector(tiny_detector_config(kind, **rcnn))


@pytest.fixture(scope='module')
def real_images(real_data):
    """The first two validation images of COCO, upright and lying."""
    content = json.loads((real_data / 'coco/annotations/instances_val2017.json').read_text())
    return [real_data / 'coco/val2017' / image['file_name'] for image in content['images'][:2]]


@pytest.mark.parametrize(('kind', 'rcnn'), [
    ('mask', {}), ('mask', dict(score_thr=0.9)), ('faster', {}), ('cascade', {})])
def test_detections_are_mmdets(kind, rcnn, real_images):
    """Boxes in the network's input, so that no division stands between; every detection in its place."""
    predictor = tiny(kind, **rcnn)
    graph = PlainDetector(predictor.model).eval()
    counts = []
    for image in real_images:
        sample = predictor.load(image)
        with torch.no_grad():
            expected = predictor.model.test_step(pseudo_collate([sample]))[0]
            boxes, scores, labels, *masks = (found[0] for found in graph(sample['inputs'][None].flip(1)))
        found = expected.pred_instances
        count = len(found)
        counts.append(count)
        assert (scores[:count] > 0).all() and not scores[count:].any()
        assert (labels[count:] == -1).all() and not boxes[count:].any()
        scale = torch.tensor(expected.scale_factor).repeat(2)
        torch.testing.assert_close(boxes[:count] / scale, found.bboxes, rtol=0, atol=0.01)
        torch.testing.assert_close(scores[:count], found.scores, rtol=0, atol=1e-5)
        assert torch.equal(labels[:count], found.labels)
        if kind != 'faster':
            pasted = predictor.model.roi_head.mask_head
            head = pasted[-1] if isinstance(pasted, torch.nn.ModuleList) else pasted
            whole = masks[0][:count, None].expand(-1, 3, -1, -1)  # the head picks the class of each box
            theirs = head._predict_by_feat_single(
                whole, boxes[:count].clone(), labels[:count], expected.metainfo, predictor.model.roi_head.test_cfg,
                rescale=True, activate_map=True) if count else found.masks
            assert (theirs != found.masks).sum() <= 1e-4 * theirs.numel()
    assert max(counts) == 40 if rcnn.get('score_thr') != 0.9 else min(counts) < 40


@pytest.mark.parametrize('kind', ['mask', 'cascade'])
def test_a_batch_gives_what_its_images_give(kind, real_images):
    predictor = tiny(kind)
    graph = PlainDetector(predictor.model).eval()
    images = torch.stack([torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, 96, 130), np.uint8))
                          for seed in range(3)])
    with torch.no_grad():
        together, alone = graph(images), [graph(image[None]) for image in images]
    for whole, *parts in zip(together, *alone, strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-4, atol=1e-3)


def test_best_keeps_the_order_of_equal_scores_and_fills_up():
    scores = torch.tensor([[0.5, 0.9, 0.5, 0.9, 0.1]])
    values, places = best(scores, 4)
    assert places.tolist() == [[1, 3, 0, 2]] and values.tolist() == scores[0, places[0]][None].tolist()
    values, places = best(scores[:, :2], 4)
    assert places[0, :2].tolist() == [1, 0] and values[0, 2:].isinf().all()


def test_suppression_of_each_row_is_torchvisions():
    from torchvision.ops import nms
    corners = torch.rand(3, 50, 2, generator=torch.manual_seed(0)) * 40
    boxes = torch.cat([corners, corners + 5 + 20 * torch.rand(3, 50, 2)], -1)
    scores = torch.rand(3, 50)
    keep = nms_mask(boxes, scores, 0.5)
    for row in range(3):
        assert sorted(nms(boxes[row], scores[row], 0.5).tolist()) == keep[row].nonzero()[:, 0].tolist()
    assert 0 < keep.float().mean() < 1


def test_boxes_are_decoded_as_mmdet_does():
    from mmdet.models.task_modules import DeltaXYWHBBoxCoder
    coder = DeltaXYWHBBoxCoder(target_means=[0.1, 0, 0, -0.1], target_stds=[0.1, 0.1, 0.2, 0.2])
    generator = torch.manual_seed(0)
    corners = 100 * torch.rand(200, 2, generator=generator)
    boxes = torch.cat([corners, corners + 80 * torch.rand(200, 2, generator=generator)], 1)
    deltas = 20 * torch.randn(200, 4, generator=generator)
    expected = coder.decode(boxes, deltas, max_shape=(90, 120))
    found = decode_boxes(boxes, deltas, torch.tensor(coder.means), torch.tensor(coder.stds), torch.tensor([120., 90.]))
    assert torch.equal(found, expected)


def test_what_cannot_be_exported_is_named():
    from mmdet.models.roi_heads.bbox_heads import DoubleConvFCBBoxHead
    predictor = tiny('mask')
    predictor.model.roi_head.test_cfg.nms.type = 'soft_nms'
    with pytest.raises(UserError, match='MaskRCNN with soft-NMS cannot be exported'):
        PlainDetector(predictor.model)
    predictor.model.roi_head.bbox_head.__class__ = DoubleConvFCBBoxHead
    predictor.model.roi_head.bbox_head.__class__ = type('Other', (DoubleConvFCBBoxHead,),
                                                        {'_predict_by_feat_single': lambda self: None})
    with pytest.raises(UserError, match='Other cannot be exported: expected a box head'):
        PlainDetector(predictor.model)
