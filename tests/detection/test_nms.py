"""NMS that stops early gives what mmdet's gives."""
import pytest
import torch
from mmdet.models.layers import multiclass_nms
from mmengine.config import ConfigDict
from torch import nn

from convnext_dense.detection import nms


def detector(**cfg) -> nn.Module:
    model = nn.Module()
    model.roi_head = nn.Module()
    model.roi_head.test_cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=20) | cfg
    return model


@pytest.mark.parametrize('rois, classes, spread', [(1000, 12, 300.0), (300, 12, 300.0), (1000, 4, 4.0), (3, 2, 50.0)])
def test_results_are_mmdets(rois, classes, spread, monkeypatch):
    """Above and below the 10,000 boxes from which mmcv goes by class; many and few boxes that overlap."""
    generator = torch.Generator().manual_seed(rois + classes)
    corners = torch.rand(rois, classes, 2, generator=generator) * spread
    sides = 60 * torch.rand(corners.shape, generator=generator) ** (1 if spread > 4 else 0.1)
    boxes = torch.cat([corners, corners + 1 + sides], 2).flatten(1)
    scores = torch.rand(rois, classes + 1, generator=generator).double().softmax(1).float()
    model, calls, plain = detector(), [], nms.nms
    monkeypatch.setattr(nms, 'nms', lambda boxes, *args: calls.append(len(boxes)) or plain(boxes, *args))
    nms.stop_nms_early(model)
    stock = detector().roi_head.test_cfg
    expected, found = (multiclass_nms(boxes, scores, 0.0, cfg.nms, cfg.max_per_img)
                       for cfg in (stock, model.roi_head.test_cfg))
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    if rois >= 300:
        assert calls[0] < 250
    assert (len(calls) > 1) == (spread == 4.0)  # there, hardly any of the best boxes is kept


def test_equal_scores_are_taken_in_their_order():
    boxes = torch.arange(400.0)[:, None] * 50 + torch.tensor([0.0, 0, 10, 10])
    scores = torch.full((400,), 0.5)
    found, kept = nms.first_nms(boxes, scores, 0.5, 3)
    assert kept[:3].tolist() == [0, 1, 2] and torch.equal(found[:3, :4], boxes[:3])


@pytest.mark.parametrize('cfg', [dict(max_per_img=-1), dict(nms=dict(type='soft_nms', iou_threshold=0.5)),
                                 dict(nms=dict(type='nms', iou_threshold=0.5, class_agnostic=True))])
def test_other_settings_are_left_to_mmdet(cfg):
    model = detector(**cfg)
    before = dict(model.roi_head.test_cfg)
    nms.stop_nms_early(model)
    assert model.roi_head.test_cfg == before
    nms.stop_nms_early(nn.Module())
