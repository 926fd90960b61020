"""mmdet's StandardRoIHead and CascadeRoIHead with a training step of fixed shapes, in which nothing waits."""
from collections.abc import Callable, Sequence
from functools import partial

import torch
from mmdet.models.losses import CrossEntropyLoss
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules import DeltaXYWHBBoxCoder
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..mm import transfer
from .boxes import Coder, take
from .masked_norm import norms_over
from .static_rpn import EPS, Proposals
from .targets import GroundTruth, Samples, check_tasks, ground_truth, pad_boxes, sample_proposals, stock_name


@MODELS.register_module()
class StaticRoIHead(StandardRoIHead):
    """mmdet's StandardRoIHead, whose training step has fixed shapes: every image has as many samples, some of weight 0.

    On a CPU its heads compute those that count alone.
    Parameters, config keys and predictions are mmdet's; given the same samples, so are losses and gradients.

    Raises:
        UserError: an assigner, a sampler, a head or a loss other than those of Mask R-CNN.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.with_shared_head:
            raise UserError("StaticRoIHead with a shared head is not supported; use mmdet's StandardRoIHead")
        if self.train_cfg:
            check_tasks('StaticRoIHead', self.bbox_assigner, self.bbox_sampler)
        self.coder = check_heads(self, self.bbox_head, self.mask_head if self.with_mask else None)

    def loss(self, x: tuple[Tensor], rpn_results_list: list[InstanceData], batch_data_samples: list
             ) -> dict[str, Tensor]:
        """As mmdet's; proposals may be padded ones of StaticRPNHead, or mmdet's."""
        truth = ground_truth(*unpack_gt_instances(batch_data_samples), self.with_mask)
        return self.losses(x, *padded(rpn_results_list), truth)

    def losses(self, x: tuple[Tensor], boxes: Tensor, valid: Tensor, truth: GroundTruth) -> dict[str, Tensor]:
        """From maps (N, C, H, W) of each level and proposals (N, P, 4), of which those of ``valid`` (N, P) count."""
        samples, boxes = sample_proposals(boxes, valid, truth, self.bbox_assigner, self.bbox_sampler)
        found = at_samples(partial(self._bbox_forward, x), self.bbox_head, rois_of(boxes), samples.valid)
        losses, _ = box_losses(self.bbox_head, self.coder, found, boxes, truth, samples, self.train_cfg)
        if self.with_mask:
            most = samples.most
            boxes, positive = boxes[:, :most], samples.positive[:, :most]
            if self.share_roi_extractor:
                features = found['bbox_feats'].unflatten(0, samples.valid.shape)[:, :most].flatten(0, 1)
                of_masks = at_samples(lambda each: {'mask_preds': self.mask_head(each)}, self.mask_head, features,
                                      positive)
            else:
                of_masks = at_samples(partial(self._mask_forward, x), self.mask_head, rois_of(boxes), positive)
            losses['loss_mask'] = mask_loss(self.mask_head, of_masks['mask_preds'], boxes, truth, samples,
                                            self.train_cfg)
        return losses


@MODELS.register_module()
class StaticCascadeRoIHead(CascadeRoIHead):
    """mmdet's CascadeRoIHead, whose training step has fixed shapes, as that of StaticRoIHead.

    Raises:
        UserError: an assigner, a sampler, a head or a loss other than those of Cascade Mask R-CNN.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for assigner, sampler in zip(self.bbox_assigner, self.bbox_sampler, strict=True):
            check_tasks('StaticCascadeRoIHead', assigner, sampler)
        masks = self.mask_head if self.with_mask else [None] * self.num_stages
        self.coders = nn.ModuleList(check_heads(self, *heads) for heads in zip(self.bbox_head, masks, strict=True))

    def loss(self, x: tuple[Tensor], rpn_results_list: list[InstanceData], batch_data_samples: list
             ) -> dict[str, Tensor]:
        """As mmdet's; proposals may be padded ones of StaticRPNHead, or mmdet's."""
        truth = ground_truth(*unpack_gt_instances(batch_data_samples), self.with_mask)
        return self.losses(x, *padded(rpn_results_list), truth)

    def losses(self, x: tuple[Tensor], boxes: Tensor, valid: Tensor, truth: GroundTruth) -> dict[str, Tensor]:
        """From maps (N, C, H, W) of each level and proposals (N, P, 4), of which those of ``valid`` (N, P) count."""
        losses = {}
        for stage, weight in enumerate(self.stage_loss_weights[:self.num_stages]):
            self.current_stage, cfg, head = stage, self.train_cfg[stage], self.bbox_head[stage]
            samples, boxes = sample_proposals(boxes, valid, truth, self.bbox_assigner[stage], self.bbox_sampler[stage])
            found = at_samples(partial(self._bbox_forward, stage, x), head, rois_of(boxes), samples.valid)
            of_stage, labels = box_losses(head, self.coders[stage], found, boxes, truth, samples, cfg)
            if self.with_mask:
                most = samples.most
                of_masks = at_samples(partial(self._mask_forward, stage, x), self.mask_head[stage],
                                      rois_of(boxes[:, :most]), samples.positive[:, :most])
                of_stage['loss_mask'] = mask_loss(self.mask_head[stage], of_masks['mask_preds'], boxes[:, :most], truth,
                                                  samples, cfg)
            losses.update({f's{stage}.{name}': value * weight if 'loss' in name else value
                           for name, value in of_stage.items()})
            if stage < self.num_stages - 1:
                boxes = refined(head, self.coders[stage], found, boxes, labels, truth.sizes[:, None])
                # objects themselves were added to the candidates of this stage, and are to those of the next
                added = truth.boxes.shape[1] if self.bbox_sampler[stage].add_gt_as_proposals else 0
                valid = samples.valid & (samples.index >= added)
        return losses


def padded(proposals: Sequence[InstanceData]) -> tuple[Tensor, Tensor]:
    """Proposals of StaticRPNHead or of mmdet as (N, P, 4), and which of them there are, bool (N, P)."""
    if isinstance(proposals[0], Proposals):
        return torch.stack([each.boxes for each in proposals]), torch.stack([each.valid for each in proposals])
    return pad_boxes([each.bboxes for each in proposals])


def rois_of(boxes: Tensor) -> Tensor:
    """Boxes (N, S, 4) as mmdet's RoIs (N * S, 5), with the index of the image first."""
    image = torch.arange(boxes.shape[0], dtype=boxes.dtype, device=boxes.device)
    return torch.cat([image[:, None, None].expand(-1, boxes.shape[1], 1), boxes], -1).flatten(0, 1)


def at_samples(forward: Callable[[Tensor], dict], head: nn.Module, rois: Tensor, counts: Tensor) -> dict:
    """What a head finds at samples, and for its norms, which see those that count alone.

    Where the host would not wait, the others are not computed: they are zeros.

    Args:
        forward: from RoIs, or their features, (n, ...) to a dict of tensors (n, ...) or None.
        rois: (N * S, ...).
        counts: bool (N, S).
    """
    counts = counts.flatten()
    if transfer.host_would_wait(rois):
        with norms_over(head, counts):
            return forward(rois)
    chosen = counts.nonzero()[:, 0]
    if not len(chosen):  # layers need a sample
        chosen = chosen.new_zeros(1)
    with norms_over(head, counts[chosen]):
        found = forward(rois[chosen])
    return {name: value if value is None else value.new_zeros(len(rois), *value.shape[1:]).index_copy(0, chosen, value)
            for name, value in found.items()}


def box_losses(head: BBoxHead, coder: Coder, found: dict, boxes: Tensor, truth: GroundTruth, samples: Samples,
               cfg: ConfigDict) -> tuple[dict[str, Tensor], Tensor]:
    """Losses and accuracy of a box head, as its ``loss_and_target``, and the labels (N, S) of the samples.

    Args:
        found: ``cls_score`` (N * S, classes + 1) and ``bbox_pred`` (N * S, 4 or 4 * classes).
        boxes: (N, S, 4), of the samples.
    """
    positive, background = samples.positive, head.num_classes
    labels = torch.where(positive, truth.labels.gather(1, samples.target), background)
    valid = samples.valid.flatten().to(boxes)
    count = valid.sum()
    losses = {}
    if found['cls_score'] is not None:
        scores, target = found['cls_score'], labels.flatten()
        weight = torch.where(positive.flatten(), cfg.pos_weight, valid) if cfg.pos_weight > 0 else valid
        loss = head.loss_cls(scores, target, reduction_override='none') * weight
        losses['loss_cls'] = loss.sum() / (count.clamp(min=1) + EPS)
        losses['acc'] = ((scores.argmax(1) == target) * valid).sum(0, keepdim=True) * (100 / count.clamp(min=1))
    if found['bbox_pred'] is not None:
        most = samples.most
        deltas = of_class(head, found['bbox_pred'].unflatten(0, positive.shape)[:, :most], labels[:, :most])
        boxes, positive = boxes[:, :most], positive[:, :most]
        targets = torch.where(positive[..., None], take(truth.boxes, samples.target[:, :most]), boxes)
        if head.reg_decoded_bbox:
            deltas = coder(boxes, deltas, None)
        else:
            targets = torch.where(positive[..., None], coder.encode(boxes, targets), 0)
        loss = head.loss_bbox(deltas.flatten(0, 1), targets.flatten(0, 1), reduction_override='none')
        loss = loss.reshape(positive.numel(), -1) * positive.reshape(-1, 1)
        losses['loss_bbox'] = loss.sum() / (count + EPS)
    return losses, labels


def of_class(head: BBoxHead, deltas: Tensor, labels: Tensor) -> Tensor:
    """Deltas (N, S, 4) for labels (N, S), of deltas (N, S, 4 * classes); any for the background."""
    if head.reg_class_agnostic:
        return deltas
    index = labels.clamp(max=head.num_classes - 1)[..., None, None].expand(-1, -1, 1, 4)
    return deltas.unflatten(2, (-1, 4)).gather(2, index)[:, :, 0]


@torch.no_grad()
def refined(head: BBoxHead, coder: Coder, found: dict, boxes: Tensor, labels: Tensor, limits: Tensor) -> Tensor:
    """Boxes (N, S, 4) for the next stage, as ``refine_bboxes``: moved by the deltas of their or their best class."""
    scores, deltas = (found[name].unflatten(0, labels.shape) for name in ('cls_score', 'bbox_pred'))
    labels = torch.where(labels == head.num_classes, scores[..., :-1].argmax(-1), labels)
    return coder(boxes, of_class(head, deltas, labels), limits)


def mask_loss(head: FCNMaskHead, logits: Tensor, boxes: Tensor, truth: GroundTruth, samples: Samples,
              cfg: ConfigDict) -> Tensor:
    """Loss of a mask head, as its ``loss_and_target``.

    Args:
        logits: (N * m, classes, h, w) of the first m samples of each image.
        boxes: (N, m, 4), theirs.
    """
    most = boxes.shape[1]
    positive, target = samples.positive[:, :most], samples.target[:, :most]
    if head.class_agnostic:
        logits = logits[:, 0]
    else:
        label = truth.labels.gather(1, target).flatten()[:, None, None, None]
        logits = logits.gather(1, label.expand(-1, 1, *logits.shape[2:]))[:, 0]
    wanted = torch.cat([mask_targets(*parts, cfg) for parts in zip(truth.masks, boxes, target, strict=True)])
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction='none').mean((1, 2)) * positive.flatten()
    return head.loss_mask.loss_weight * loss.sum() / positive.sum().clamp(min=1)


@torch.no_grad()
def mask_targets(bitmaps: Tensor, boxes: Tensor, target: Tensor, cfg: ConfigDict) -> Tensor:
    """Masks (m, h, w) of objects ``target`` (m,) within boxes (m, 4), as mmdet's ``mask_target``.

    Args:
        bitmaps: uint8 (objects, H, W).
    """
    from torchvision.ops import roi_align
    size = (cfg.mask_size,) * 2 if isinstance(cfg.mask_size, int) else tuple(cfg.mask_size)
    if len(bitmaps) == 0:
        return boxes.new_zeros(len(boxes), *size)
    if len(bitmaps) > len(boxes):
        bitmaps, target = bitmaps[target], torch.arange(len(boxes), device=boxes.device)
    height, width = bitmaps.shape[1:]
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    rois = torch.stack([target.to(boxes), x[:, 0], y[:, 0], x[:, 1], y[:, 1]], -1)
    targets = roi_align(bitmaps[:, None].to(boxes), rois, size, 1.0, 0, True)[:, 0]
    return targets if cfg.get('soft_mask_target', False) else (targets >= 0.5).to(boxes)


def check_heads(roi_head: nn.Module, head: nn.Module, mask_head: nn.Module | None) -> Coder:
    """Refuse heads whose losses are other than those that this computes; returns the box head's coder.

    Raises:
        UserError: names the RoI head, and the part that it does not support.
    """
    name = type(roi_head).__name__
    same_loss = all(getattr(type(head), method) is getattr(BBoxHead, method) for method in (
        'loss', 'loss_and_target', 'get_targets', '_get_targets_single', 'refine_bboxes'))
    others = {
        f'box head {type(head).__name__}': not isinstance(head, BBoxHead) or not same_loss,
        'another box coder': type(head.bbox_coder) is not DeltaXYWHBBoxCoder or head.bbox_coder.add_ctr_clamp,
        'a classification loss other than softmax cross-entropy':
            type(head.loss_cls) is not CrossEntropyLoss or head.loss_cls.use_sigmoid,
    }
    if mask_head is not None:
        same_loss = all(getattr(type(mask_head), method, None) is getattr(FCNMaskHead, method)
                        for method in ('loss_and_target', 'get_targets'))
        others |= {f'mask head {type(mask_head).__name__}': not same_loss,
                   'a mask loss other than cross-entropy': type(mask_head.loss_mask) is not CrossEntropyLoss
                   or not mask_head.loss_mask.use_mask or mask_head.loss_mask.class_weight is not None}
    for what, is_other in others.items():
        if is_other:
            raise UserError(f"{name} with {what} is not supported; use mmdet's {stock_name(name)}")
    return Coder(head.bbox_coder)
