"""Two-stage detectors of mmdet as one graph of plain tensor functions with fixed shapes.

mmdet's ``predict`` loops over images, filters boxes by their values and keeps metadata beside tensors; neither
``torch.export`` nor ONNX can follow it. The modules here hold mmdet's own backbone, neck and heads, so the weights are
theirs, and do the rest batched: 1000 proposals and 100 detections per image (as the config says), padded. Results are
those of ``predict``, up to rounding.
"""
from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors.two_stage import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from ..errors import UserError
from .boxes import Coder, apart, best, nms_mask, take
from .float32_heads import Float32FCNMaskHead

# Class scores that enter the last suppression, per image, best first: 100 detections come from far fewer, and
# TensorRT's TopK takes 3840 at most.
CANDIDATES = 3000


class PlainDetector(nn.Module):
    """Faster R-CNN, Mask R-CNN, Cascade R-CNN or Cascade Mask R-CNN from pixels to padded detections.

    Args:
        model: of mmdet; its modules are shared, not copied.

    Raises:
        UserError: a part of the model is another than those that this computes.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        check_parts(model)
        data = model.data_preprocessor
        self.backbone, self.neck = model.backbone, model.neck if model.with_neck else nn.Identity()
        self.divisor, self.pad_value = data.pad_size_divisor, data.pad_value
        self.register_buffer('mean', data.mean.clone(), persistent=False)
        self.register_buffer('std', data.std.clone(), persistent=False)
        self.proposals, self.boxes = Proposals(model.rpn_head), BoxHeads(model.roi_head)
        self.masks = MaskHeads(model.roi_head) if model.with_mask else None
        self.output_names = ['boxes', 'scores', 'labels', *(['masks'] if model.with_mask else [])]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            images: uint8 or float (N, 3, H, W) with values from 0 to 255, channels in the order of the mean.

        Returns:
            boxes (N, D, 4) as x1, y1, x2, y2 in pixels, scores (N, D), best first and 0 where there is none, labels
            (N, D), -1 where there is none, and probabilities (N, D, 28, 28) of masks within their boxes.
        """
        height, width = images.shape[2:]
        limits = torch.cat([torch.full((1,), side, dtype=torch.float32, device=images.device)
                            for side in (width, height)])
        x = ((images.float() - self.mean) / self.std).to(next(self.backbone.parameters()).dtype)
        padding = [(side + self.divisor - 1) // self.divisor * self.divisor - side for side in (width, height)]
        x = F.pad(x, (0, padding[0], 0, padding[1]), value=self.pad_value)
        features = self.neck(self.backbone(x))
        proposals, valid = self.proposals(features, limits)
        boxes, scores, labels = self.boxes(features, proposals, valid, limits)
        masks = () if self.masks is None else (self.masks(features, boxes, labels),)
        found = scores > 0
        return boxes * found[..., None], scores, torch.where(found, labels, -1), *masks


class Proposals(nn.Module):
    """mmdet's RPNHead with its test settings."""

    def __init__(self, head: RPNHead):
        super().__init__()
        self.head, self.settings = head, head.test_cfg
        self.coder = Coder(head.bbox_coder)
        self.strides = head.prior_generator.strides
        for level, anchors in enumerate(head.prior_generator.base_anchors):
            self.register_buffer(f'anchors{level}', anchors.clone(), persistent=False)

    def forward(self, features: Sequence[Tensor], limits: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, P, 4), best first, and which of them there are, bool (N, P)."""
        levels = [self.level(index, *self.head.forward_single(feature), limits)
                  for index, feature in enumerate(features)]
        boxes, scores = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
        minimum = self.settings.get('min_bbox_size', -1)
        valid = scores >= 0
        if minimum >= 0:
            valid = valid & (boxes[..., 2:] - boxes[..., :2] > minimum).all(-1)
        count = self.settings.nms_pre
        level = torch.arange(len(levels), device=boxes.device).repeat_interleave(count)[None].expand_as(scores)
        # each level is a row: no comparisons between levels
        rows = apart(boxes, level, valid).reshape(-1, count, 4)
        scores = torch.where(valid, scores, -1)
        keep = nms_mask(rows, scores.reshape(-1, count), self.settings.nms.iou_threshold).view_as(scores)
        scores, places = best(torch.where(keep, scores, -1), self.settings.max_per_img)
        valid = scores >= 0
        return take(boxes, places) * valid[..., None], valid

    def level(self, index: int, scores: Tensor, deltas: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
        """The best boxes of a level and their scores, as many as ``nms_pre``, -inf where there are fewer."""
        base = getattr(self, f'anchors{index}')
        # a tensor, since exporters take divisors that follow from a shape only so
        width = torch.full((1,), scores.shape[3], dtype=torch.long, device=scores.device)
        scores, places = best(scores.permute(0, 2, 3, 1).flatten(1).float().sigmoid(), self.settings.nms_pre)
        deltas = take(deltas.permute(0, 2, 3, 1).reshape(deltas.shape[0], -1, 4), places).float()
        cell = places // len(base)
        corner = torch.stack([cell % width * self.strides[index][0], cell // width * self.strides[index][1]], -1)
        anchors = base[places % len(base)] + corner.repeat(1, 1, 2).to(base.dtype)
        return self.coder(anchors, deltas, limits), scores


class BoxHeads(nn.Module):
    """The box heads of mmdet's StandardRoIHead, or those of CascadeRoIHead one after the other."""

    def __init__(self, roi_head: nn.Module):
        super().__init__()
        self.heads = nn.ModuleList(as_list(roi_head.bbox_head))
        self.pools = nn.ModuleList(map(RoIPool, as_list(roi_head.bbox_roi_extractor)))
        self.coders = nn.ModuleList(Coder(head.bbox_coder) for head in self.heads)
        self.settings = roi_head.test_cfg

    def forward(self, features: Sequence[Tensor], rois: Tensor, valid: Tensor, limits: Tensor
                ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, D, 4), scores (N, D), best first and 0 where there is none, and labels of RoIs (N, P, 4)."""
        total = None
        for stage, (head, pool, coder) in enumerate(zip(self.heads, self.pools, self.coders, strict=True)):
            logits, deltas = (each.float().unflatten(0, rois.shape[:2]) for each in head(pool(features, rois)))
            total = logits if total is None else total + logits
            deltas = deltas.unflatten(2, (-1, 4))
            if stage < len(self.heads) - 1:
                if head.reg_class_agnostic:
                    deltas = deltas[:, :, 0]
                else:
                    label = logits[..., :-1].argmax(-1)
                    deltas = deltas.gather(2, label[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
                rois = coder(rois, deltas, limits)
        scores = (total / float(len(self.heads))).softmax(-1)[..., :-1]
        classes = scores.shape[2]
        threshold = self.settings.score_thr
        scores, places = best(torch.where(valid[..., None], scores, 0).flatten(1), CANDIDATES)
        of_roi, labels = places // classes, places % classes
        deltas = take(deltas[:, :, 0], of_roi) if head.reg_class_agnostic else take(deltas.flatten(1, 2), places)
        boxes = coder(take(rois, of_roi), deltas, limits)
        valid = scores > threshold
        scores = torch.where(valid, scores, 0)
        keep = nms_mask(apart(boxes, labels, valid), scores, self.settings.nms.iou_threshold)
        scores, places = best(torch.where(keep, scores, 0), self.settings.max_per_img)
        return take(boxes, places), scores, take(labels, places)


class MaskHeads(nn.Module):
    """The mask heads of mmdet's StandardRoIHead, or the mean of those of CascadeRoIHead."""

    def __init__(self, roi_head: nn.Module):
        super().__init__()
        self.heads = nn.ModuleList(as_list(roi_head.mask_head))
        self.pools = nn.ModuleList(map(RoIPool, as_list(roi_head.mask_roi_extractor)))

    def forward(self, features: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Probabilities (N, D, 28, 28) of the masks of boxes (N, D, 4) for their labels (N, D)."""
        labels = labels.flatten()[:, None, None, None]
        masks = []
        for head, pool in zip(self.heads, self.pools, strict=True):
            logits = head(pool(features, boxes)).float()
            index = torch.zeros_like(labels) if head.class_agnostic else labels
            masks.append(logits.gather(1, index.expand(-1, 1, *logits.shape[2:]))[:, 0].sigmoid())
        masks = masks[0] if len(masks) == 1 else torch.stack(masks).mean(0)
        return masks.unflatten(0, boxes.shape[:2])


class RoIPool(nn.Module):
    """mmdet's SingleRoIExtractor in float32: each RoI from the map of its size."""

    def __init__(self, extractor: SingleRoIExtractor):
        super().__init__()
        self.layers = [dict(output_size=layer.output_size, spatial_scale=layer.spatial_scale,
                            sampling_ratio=layer.sampling_ratio, aligned=layer.aligned)
                       for layer in extractor.roi_layers]
        self.finest_scale = extractor.finest_scale

    def forward(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Features (N * n, C, size, size) of boxes (N, n, 4).

        Every box is pooled from every map, with no extent where the map is not its own; that costs little more than
        writing the result, and shapes do not depend on values.
        """
        image = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
        boxes, image = boxes.flatten(0, 1), image.repeat_interleave(boxes.shape[1])[:, None]
        size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt() / self.finest_scale + 1e-6
        level = sum((size >= 2 ** index).long() for index in range(1, len(self.layers))) \
            if len(self.layers) > 1 else torch.zeros_like(size, dtype=torch.long)
        total = None
        for index, layer in enumerate(self.layers):
            own = level == index
            pooled = roi_align(features[index].float(), torch.cat([image, boxes * own[:, None]], 1), **layer)
            total = pooled if total is None else torch.where(own[:, None, None, None], pooled, total)
        return total.to(features[0].dtype)


def as_list(modules: nn.Module) -> list[nn.Module]:
    """The stages of a cascade, or one module."""
    return list(modules) if isinstance(modules, nn.ModuleList) else [modules]


def check_parts(model: nn.Module) -> None:
    """Refuse a detector with a part that predicts in another way than the modules here.

    Raises:
        UserError: names the part, and what there is.
    """
    def require(part, methods: Sequence, what: str) -> None:
        for method in methods:
            if getattr(type(part), method.__name__, None) is not method:
                raise UserError(f'{type(part).__name__} cannot be exported: expected {what}')

    def same(part, cls: type, what: str) -> None:
        if type(part) is not cls:
            raise UserError(f'{type(part).__name__} cannot be exported: expected {what}')

    require(model, (TwoStageDetector.predict,), 'Faster R-CNN, Mask R-CNN, Cascade R-CNN or Cascade Mask R-CNN (or '
            'UPerNet)')
    rpn, roi = model.rpn_head, model.roi_head
    require(rpn, (RPNHead._predict_by_feat_single, RPNHead._bbox_post_process), "mmdet's RPNHead")
    cascade = isinstance(roi, CascadeRoIHead)
    kind = CascadeRoIHead if cascade else StandardRoIHead
    require(roi, (kind.predict_bbox, kind.predict_mask, kind._bbox_forward), 'StandardRoIHead or CascadeRoIHead')
    same(rpn.prior_generator, AnchorGenerator, 'anchors of AnchorGenerator')
    for head in as_list(roi.bbox_head):
        require(head, (BBoxHead.predict_by_feat, BBoxHead._predict_by_feat_single), "a box head that predicts as "
                "mmdet's BBoxHead")
        same(head.bbox_coder, DeltaXYWHBBoxCoder, 'boxes of DeltaXYWHBBoxCoder')
    same(rpn.bbox_coder, DeltaXYWHBBoxCoder, 'boxes of DeltaXYWHBBoxCoder')
    extractors = as_list(roi.bbox_roi_extractor)
    if model.with_mask:
        extractors += as_list(roi.mask_roi_extractor)
        for head in as_list(roi.mask_head):
            # ours pastes masks in another way, with the same result; pasting is not in the graph
            pastes = Float32FCNMaskHead if isinstance(head, Float32FCNMaskHead) else FCNMaskHead
            require(head, (FCNMaskHead.predict_by_feat, pastes._predict_by_feat_single), "mmdet's FCNMaskHead")
    for extractor in extractors:
        require(extractor, (SingleRoIExtractor.map_roi_levels,), 'SingleRoIExtractor')
    others = [name for name, is_other in {
        'a shared head': roi.with_shared_head, 'an RPN with softmax': not rpn.use_sigmoid_cls,
        'another activation of class scores': any(head.custom_activation for head in as_list(roi.bbox_head)),
        'box centres that are clamped': any(head.bbox_coder.add_ctr_clamp for head in as_list(roi.bbox_head)),
        'RoI pooling other than RoIAlign with the mean': any(
            type(layer).__name__ != 'RoIAlign' or layer.pool_mode != 'avg' for extractor in extractors
            for layer in extractor.roi_layers),
        'soft-NMS': any(cfg.nms.get('type', 'nms') != 'nms' for cfg in (rpn.test_cfg, roi.test_cfg)),
    }.items() if is_other]
    if others:
        raise UserError(f'{type(model).__name__} with {others[0]} cannot be exported: expected the parts of '
                        'configs/det/_base_/mask-rcnn_convnext_fpn.py')


__all__ = ['PlainDetector']
