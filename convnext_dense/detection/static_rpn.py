"""mmdet's RPNHead with a training step of fixed shapes, in which the host waits for NMS alone."""
from collections.abc import Sequence

import torch
from mmdet.models.losses import CrossEntropyLoss
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from ..errors import UserError
from ..mm.patches import share_samples_with_rpn
from ..mm.transfer import host_values
from .boxes import Coder, apart, best, nms_mask, take
from .float32_heads import Float32RPNHead
from .targets import Samples, assign, check_tasks, ground_truth, sample

EPS = torch.finfo(torch.float32).eps  # that mmdet adds to the number of samples
share_samples_with_rpn()


class Proposals(InstanceData):
    """Padded proposals of an image: ``boxes`` (P, 4), ``valid`` bool (P,)."""

    def pop(self, *args):
        """What mmdet's RoI heads begin with; they would take padding for proposals."""
        raise UserError('roi_head.type: expected StaticRoIHead or StaticCascadeRoIHead with rpn_head.type '
                        "StaticRPNHead, found another; set rpn_head.type='Float32RPNHead', which goes with any")


@MODELS.register_module()
class StaticRPNHead(Float32RPNHead):
    """mmdet's RPNHead in float32, whose loss and proposals in training have fixed shapes.

    Parameters, config keys and predictions are mmdet's; given the same samples, so are losses and gradients. Proposals
    are padded, for StaticRoIHead and StaticCascadeRoIHead.

    Raises:
        UserError: an assigner, a sampler, anchors, a box coder, a loss or NMS other than those of Faster R-CNN.
    """

    reads_no_labels = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.coder = Coder(self.bbox_coder)
        self.grids: dict[int, Tensor] = {}  # anchors of each level on the largest map seen, (rows, columns, n, 4)
        if self.train_cfg:
            check_tasks('StaticRPNHead', self.assigner, self.sampler)
        anchors = self.prior_generator
        others = [what for what, is_other in {
            'anchors other than those of AnchorGenerator around whole strides':
                type(anchors) is not AnchorGenerator or anchors.center_offset != 0 or anchors.centers is not None,
            'another box coder': type(self.bbox_coder) is not DeltaXYWHBBoxCoder or self.bbox_coder.add_ctr_clamp,
            'scores by softmax': not self.use_sigmoid_cls,
            'a classification loss other than CrossEntropyLoss': type(self.loss_cls) is not CrossEntropyLoss,
        }.items() if is_other]
        if others:
            raise UserError(f"StaticRPNHead with {others[0]} is not supported; use mmdet's RPNHead")

    def loss_by_feat(self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor],
                     batch_gt_instances: list[InstanceData], batch_img_metas: list[dict],
                     batch_gt_instances_ignore: list[InstanceData | None] | None = None) -> dict[str, Tensor]:
        """As mmdet's, with the sum over levels in place of a loss a level."""
        ignored = batch_gt_instances_ignore or [None] * len(batch_gt_instances)
        truth = ground_truth(batch_gt_instances, ignored)
        anchors = self.anchors(cls_scores)
        inside = self.inside(anchors, batch_img_metas)
        assigned = assign(anchors[None], inside, truth, self.assigner)
        samples = sample(assigned, anchors[None], self.sampler)
        scores, deltas = flat(cls_scores, 1)[..., 0], flat(bbox_preds, 4)
        return self.losses(scores, deltas, anchors, truth.boxes, samples)

    def losses(self, scores: Tensor, deltas: Tensor, anchors: Tensor, objects: Tensor, samples: Samples
               ) -> dict[str, Tensor]:
        """Of scores (N, A) and deltas (N, A, 4) of anchors (A, 4), of which some are sampled."""
        positive, chosen = samples.positive, samples.positive.sum(1)
        count = (chosen.clamp(min=1) + (samples.valid.sum(1) - chosen).clamp(min=1)).sum() + EPS
        weight = samples.valid.to(scores)
        if self.train_cfg['pos_weight'] > 0:
            weight = torch.where(positive, self.train_cfg['pos_weight'], weight)
        loss_cls = self.loss_cls(take(scores, samples.index).flatten(), positive.flatten().long(),
                                 reduction_override='none')
        loss_cls = (loss_cls * weight.flatten()).sum() / count
        most = samples.most
        index, positive = samples.index[:, :most], positive[:, :most]
        boxes = anchors[index]
        targets = torch.where(positive[..., None], take(objects, samples.target[:, :most]), boxes)
        found = take(deltas, index)
        if self.reg_decoded_bbox:
            found = self.coder(boxes, found, None)
        else:
            targets = self.coder.encode(boxes, targets)
        loss_bbox = self.loss_bbox(found.flatten(0, 1), targets.flatten(0, 1), reduction_override='none')
        loss_bbox = (loss_bbox.reshape(positive.numel(), -1) * positive.reshape(-1, 1)).sum() / count
        return dict(loss_rpn_cls=loss_cls, loss_rpn_bbox=loss_bbox)

    def loss_and_predict(self, x: tuple[Tensor], batch_data_samples: list, proposal_cfg: ConfigDict | None = None
                         ) -> tuple[dict[str, Tensor], list[Proposals]]:
        """As mmdet's, with padded proposals, as many for each image as ``proposal_cfg.max_per_img``."""
        instances, ignored, metas = unpack_gt_instances(batch_data_samples)
        cls_scores, bbox_preds = self(x)
        losses = self.loss_by_feat(cls_scores, bbox_preds, instances, metas, ignored)
        boxes, valid = self.padded_proposals(cls_scores, bbox_preds, metas, proposal_cfg or self.test_cfg)
        return losses, [Proposals(boxes=one, valid=two) for one, two in zip(boxes, valid, strict=True)]

    @torch.no_grad()
    def padded_proposals(self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], metas: list[dict],
                         cfg: ConfigDict) -> tuple[Tensor, Tensor]:
        """Proposals (N, P, 4), best first, zeros where there is none, and which of them there are, bool (N, P)."""
        if set(cfg.nms) - {'type', 'iou_threshold'} or cfg.nms.get('type', 'nms') != 'nms':
            raise UserError(f"train_cfg.rpn_proposal.nms: expected dict(type='nms', iou_threshold=...), found "
                            f"{dict(cfg.nms)}; with rpn_head.type='Float32RPNHead' any works")
        scores, places, levels, start = [], [], [], 0
        for level, part in enumerate(cls_scores):
            part = flat([part], 1)[..., 0].sigmoid()
            length = part.shape[1]
            part, place = best(part, min(cfg.get('nms_pre', -1), length) if cfg.get('nms_pre', -1) > 0 else length)
            scores.append(part)
            places.append(place + start)
            levels.append(torch.full_like(place, level))
            start += length
        scores, places, levels = (torch.cat(parts, 1) for parts in (scores, places, levels))
        boxes = self.coder(self.anchors(cls_scores)[places], take(flat(bbox_preds, 4), places),
                           host_values([meta['img_shape'][1::-1] for meta in metas], scores)[:, None])
        valid = torch.ones_like(scores, dtype=torch.bool)
        if cfg.get('min_bbox_size', -1) >= 0:
            valid = (boxes[..., 2:] - boxes[..., :2] > cfg.min_bbox_size).all(-1)
            scores = torch.where(valid, scores, -1)
        keep = nms_mask(apart(boxes, levels, valid), scores, cfg.nms.iou_threshold)
        scores, places = best(torch.where(keep, scores, -1), cfg.max_per_img)
        valid = scores >= 0
        return torch.where(valid[..., None], take(boxes, places), 0), valid

    def anchors(self, maps: Sequence[Tensor]) -> Tensor:
        """Anchors (A, 4) of all levels. They depend on the place alone, so those of the largest map are kept."""
        levels = []
        for level, (rows, columns) in enumerate(each.shape[2:] for each in maps):
            grid = self.grids.get(level)
            if grid is None or grid.device != maps[0].device or rows > grid.shape[0] or columns > grid.shape[1]:
                size = (rows, columns) if grid is None else (max(rows, grid.shape[0]), max(columns, grid.shape[1]))
                grid = self.prior_generator.single_level_grid_priors(size, level, device=maps[0].device)
                self.grids[level] = grid = grid.view(*size, -1, 4)
            levels.append(grid[:rows, :columns].reshape(-1, 4))
        return torch.cat(levels)

    def inside(self, anchors: Tensor, metas: list[dict]) -> Tensor:
        """Which anchors of each image may be matched, bool (N, A): mmdet's valid flags and ``allowed_border``."""
        border = self.train_cfg['allowed_border']
        limits = host_values([(*meta['img_shape'][1::-1], *meta['pad_shape'][1::-1]) for meta in metas], anchors)
        size, padded = limits[:, None, :2], limits[:, None, 2:]
        corners, others = anchors[None, :, :2], anchors[None, :, 2:]
        inside = (corners + others) * 0.5 < padded - 0.5  # centres are whole numbers, up to rounding
        if border >= 0:
            inside = inside & (corners >= -border) & (others < size + border)
        return inside.all(-1)


def flat(maps: Sequence[Tensor], channels: int) -> Tensor:
    """(N, k * channels, H, W) of each level as one (N, A, channels), in the order of mmdet's anchors."""
    return torch.cat([each.permute(0, 2, 3, 1).reshape(each.shape[0], -1, channels) for each in maps], 1)
