"""A detector's training forward pass under mixed precision: boxes, proposals and losses in float32, as in mmdet 2.

Recipes at small width, with CPU autocast in both half types; `force_fp32` of mmdet 2 is the list of what is float32.
"""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from convnext_dense.detection.boxes import Coder

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/det'
MASK_RCNN = 'mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'
CASCADE = 'cascade-mask-rcnn_convnext-t-in1k_fpn_4conv1fc-giou_8xb2-amp-ms-crop-3x_coco.py'
STOCK = {'StaticRPNHead': 'RPNHead', 'StaticRoIHead': 'StandardRoIHead', 'StaticCascadeRoIHead': 'CascadeRoIHead',
         'Float32RoIExtractor': 'SingleRoIExtractor', 'Float32FCNMaskHead': 'FCNMaskHead',
         'Float32Shared2FCBBoxHead': 'Shared2FCBBoxHead', 'Float32ConvFCBBoxHead': 'ConvFCBBoxHead'}
HALF = [torch.float16, torch.bfloat16]
HEIGHT, WIDTH, CHANNELS = 512, 1344, 16  # wide enough that both half types round coordinates


def small(name: str, stock: bool = False) -> torch.nn.Module:
    """A recipe's detector with narrow layers, random weights and nothing random in its forward pass."""
    cfg = Config.fromfile(CONFIGS / name).model
    cfg.backbone.update(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]), init_cfg=None, drop_path_rate=0.0)
    cfg.neck.update(in_channels=[8, 16, 24, 32], out_channels=CHANNELS)
    cfg.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    heads = cfg.roi_head.bbox_head if isinstance(cfg.roi_head.bbox_head, list) else [cfg.roi_head.bbox_head]
    for head in heads:
        head.update(in_channels=CHANNELS, fc_out_channels=32, num_classes=5)
        if 'conv_out_channels' in head:
            head.conv_out_channels = CHANNELS
    cfg.roi_head.mask_head.update(in_channels=CHANNELS, conv_out_channels=CHANNELS, num_convs=1, num_classes=5)
    for extractor in (cfg.roi_head.bbox_roi_extractor, cfg.roi_head.mask_roi_extractor):
        extractor.out_channels = CHANNELS
    for rcnn in cfg.train_cfg.rcnn if isinstance(cfg.train_cfg.rcnn, list) else [cfg.train_cfg.rcnn]:
        rcnn.sampler.num = 32
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(as_stock(cfg) if stock else cfg))
    model.init_weights()
    for module in (model.rpn_head.rpn_reg, model.rpn_head.rpn_cls):
        torch.nn.init.normal_(module.weight, std=0.1)  # boxes that differ from their anchors
    return model.train()


def as_stock(node):
    """A config with mmdet's types in the place of ours."""
    if isinstance(node, dict):
        return type(node)({key: STOCK.get(value, value) if key == 'type' else as_stock(value)
                           for key, value in node.items()})
    return [as_stock(item) for item in node] if isinstance(node, list) else node


def as_list(losses) -> list:
    """RPN's losses are lists, one a level."""
    return losses if isinstance(losses, list) else [losses]


def batch() -> dict:
    rng = np.random.default_rng(0)
    boxes = torch.tensor([[100.3, 50.7, 430.2, 380.9], [1040.1, 99.6, 1069.8, 130.2], [700.5, 10.2, 1330.4, 500.1]])
    masks = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(metainfo=dict(img_shape=(HEIGHT, WIDTH), ori_shape=(HEIGHT, WIDTH)))
    sample.gt_instances = InstanceData(bboxes=HorizontalBoxes(boxes), labels=torch.tensor([0, 1, 4]),
                                       masks=BitmapMasks(masks, HEIGHT, WIDTH))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
    image = torch.from_numpy(rng.integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8))
    return dict(inputs=[image], data_samples=[sample])


def proposals() -> InstanceData:
    """Boxes around the objects and elsewhere, as an RPN would give them, with fractions of a pixel."""
    rng = np.random.default_rng(1)
    objects = batch()['data_samples'][0].gt_instances.bboxes.tensor.repeat(6, 1).numpy()
    near = objects + rng.normal(0, 0.06, objects.shape) * np.tile(objects[:, 2:] - objects[:, :2], 2)
    corners = rng.uniform([0, 0], [WIDTH - 60, HEIGHT - 60], (60, 2))
    boxes = np.concatenate([near, np.concatenate([corners, corners + rng.uniform(4, 60, (60, 2))], 1)])
    boxes = torch.from_numpy(boxes.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])).float()
    return InstanceData(bboxes=boxes, scores=torch.linspace(1, 0, len(boxes)), labels=torch.zeros(len(boxes)).long())


class Spy:
    """What a training forward pass hands to RoIAlign, to the box coder and to the losses."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype, monkeypatch, fixed_proposals: bool = True):
        self.rois, self.maps, self.decoded, self.compared = {}, [], [], []
        for name, module in model.named_modules():
            if 'roi_layers.' in name:
                module.register_forward_pre_hook(lambda _, args, name=name: self._roi_align(name, *args))
            elif name.rpartition('.')[2].startswith('loss_'):
                module.register_forward_pre_hook(lambda _, args: self.compared.append(args[0].dtype))
        for coder, name in ((DeltaXYWHBBoxCoder, 'decode'), (Coder, 'forward')):
            decode = getattr(coder, name)
            monkeypatch.setattr(coder, name, lambda self_, boxes, deltas, *args, decode=decode, **kwargs: (
                self.decoded.append((boxes.dtype, deltas.dtype)), decode(self_, boxes, deltas, *args, **kwargs))[1])
        if fixed_proposals:
            boxes = proposals().bboxes[None]
            model.rpn_head.predict_by_feat = lambda *args, **kwargs: [proposals()]
            model.rpn_head.padded_proposals = lambda *args: (boxes, torch.ones(boxes.shape[:2], dtype=torch.bool))
        torch.manual_seed(0)
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            self.losses = model(**model.data_preprocessor(batch(), training=True), mode='loss')

    def _roi_align(self, name: str, feat: torch.Tensor, rois: torch.Tensor) -> None:
        self.maps.append(feat.dtype)
        self.rois[name] = rois.detach()

    def dtypes(self) -> set[torch.dtype]:
        """Of everything seen."""
        return {*self.maps, *(rois.dtype for rois in self.rois.values()), *sum(self.decoded, ()), *self.compared}


@pytest.mark.parametrize('name, losses', [(MASK_RCNN, 5), (CASCADE, 11)], ids=['mask-rcnn', 'cascade'])
@pytest.mark.parametrize('dtype', HALF)
def test_boxes_and_losses_are_float32(name, losses, dtype, monkeypatch):
    spy = Spy(small(name), dtype, monkeypatch, fixed_proposals=False)
    values = [value for key, items in spy.losses.items() if 'loss' in key for value in as_list(items)]
    assert spy.dtypes() == {torch.float32} and {value.dtype for value in values} == {torch.float32}
    stages = losses // 3
    assert len(spy.compared) == losses - stages  # mask losses are computed without a module
    assert len(spy.decoded) >= (1 if stages == 1 else 1 + stages + 2)  # proposals; GIoU and refinement of a cascade
    sum(values).backward()


@pytest.mark.parametrize('name', [MASK_RCNN, CASCADE], ids=['mask-rcnn', 'cascade'])
@pytest.mark.parametrize('dtype', HALF)
def test_the_same_proposals_give_the_same_rois(name, dtype, monkeypatch):
    """Of the first stage; later stages refine them by predictions in half precision."""
    def first_stage(model, dtype):
        rois = Spy(model, dtype, monkeypatch).rois
        return {layer: boxes for layer, boxes in rois.items() if not {'1', '2'} & set(layer.split('.')[:-1])}

    expected, found = first_stage(small(name), torch.float32), first_stage(small(name), dtype)
    assert found.keys() == expected.keys() and len(found) > 4
    assert all(torch.equal(found[layer], expected[layer]) for layer in expected)
    expected, stock = (first_stage(small(name, stock=True), dtype) for dtype in (torch.float32, dtype))
    assert stock.keys() != expected.keys() or not all(torch.equal(stock[layer].float(), expected[layer])
                                                      for layer in expected)


@pytest.mark.parametrize('dtype', HALF)
def test_proposals_are_decoded_in_float32(dtype):
    """Each proposal, of prediction and of training, is an anchor moved by its deltas in float64, to 0.001 pixels."""
    distance = {}
    for stock in (False, True):
        head = small(MASK_RCNN, stock).rpn_head
        torch.manual_seed(1)
        maps = [torch.randn(1, CHANNELS, HEIGHT // s, WIDTH // s).to(dtype) for s in (4, 8, 16, 32, 64)]
        with torch.autocast('cpu', dtype), torch.no_grad():
            scores, deltas = head(maps)
            metas, cfg = [dict(img_shape=(HEIGHT, WIDTH))], Config(dict(
                nms_pre=100, max_per_img=100, min_bbox_size=-1, nms=dict(type='nms', iou_threshold=0.7)))
            found = head.predict_by_feat(scores, deltas, batch_img_metas=metas, cfg=cfg)[0].bboxes
            if not stock:  # in training
                padded, valid = head.padded_proposals(scores, deltas, torch.tensor([[WIDTH, HEIGHT]]), cfg)
                assert valid.all() and len(found) == 100
                found = torch.cat([found, padded[0]])
        exact = decode_everything(deltas)
        distance[stock] = torch.cdist(found.double(), exact, p=float('inf')).min(1).values.max().item()
    assert distance[False] < 1e-3 < 0.1 < distance[True]


def decode_everything(deltas: list[torch.Tensor]) -> torch.Tensor:
    """(n, 4) boxes of all anchors in float64: anchors 8 strides wide in three shapes, R-CNN's box deltas, clipped."""
    boxes = []
    for stride, delta in zip((4, 8, 16, 32, 64), deltas, strict=True):
        ratios = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
        width, height = 8 * stride / ratios.sqrt(), 8 * stride * ratios.sqrt()
        rows, columns = delta.shape[-2:]
        y, x = torch.meshgrid(torch.arange(rows) * stride, torch.arange(columns) * stride, indexing='ij')
        dx, dy, dw, dh = delta[0].double().reshape(3, 4, rows, columns).unbind(1)
        cx, cy = x + dx * width[:, None, None], y + dy * height[:, None, None]
        w, h = width[:, None, None] * dw.exp(), height[:, None, None] * dh.exp()
        boxes.append(torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1).reshape(-1, 4))
    boxes = torch.cat(boxes)
    return boxes.clamp(min=0).minimum(boxes.new_tensor([WIDTH, HEIGHT, WIDTH, HEIGHT]))
