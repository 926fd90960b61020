"""mmdet's RPNHead with a training step of fixed shapes, in which the host waits for NMS alone."""
from collections.abc import Sequence

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.losses import CrossEntropyLoss
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from ..errors import UserError
from ..mm.patches import share_samples_with_rpn
from .boxes import Coder, apart, best, nms_mask, take
from .float32_heads import Float32RPNHead
from .targets import GroundTruth, Samples, assign, check_tasks, ground_truth, sample

OTHER_ROI_HEAD = ('roi_head.type: expected StaticRoIHead or StaticCascadeRoIHead with rpn_head.type StaticRPNHead, '
                  "found another; set rpn_head.type='Float32RPNHead', which goes with any")
EPS = torch.finfo(torch.float32).eps  # that mmdet adds to the number of samples


class Proposals(InstanceData):
    """Padded proposals of an image: ``boxes`` (P, 4), ``valid`` bool (P,)."""

    def pop(self, *args):
        """What mmdet's RoI heads begin with; they would take padding for proposals."""
        raise UserError(OTHER_ROI_HEAD)


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
        return self.losses(cls_scores, bbox_preds, ground_truth(batch_gt_instances, ignored, batch_img_metas))

    def losses(self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], truth: GroundTruth
               ) -> dict[str, Tensor]:
        """From maps (N, k, H, W) and (N, 4 * k, H, W) of each level."""
        anchors = self.anchors(cls_scores)
        assigned = assign(anchors[None], self.inside(anchors, truth), truth, self.assigner)
        samples = sample(assigned, anchors[None], self.sampler)
        scores, deltas = flat(cls_scores, 1)[..., 0], flat(bbox_preds, 4)
        return self.sample_losses(scores, deltas, anchors, truth.boxes, samples)

    def sample_losses(self, scores: Tensor, deltas: Tensor, anchors: Tensor, objects: Tensor, samples: Samples
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
        truth = ground_truth(*unpack_gt_instances(batch_data_samples))
        losses, boxes, valid = self.losses_and_proposals(x, truth, proposal_cfg or self.test_cfg)
        return losses, [Proposals(boxes=one, valid=two) for one, two in zip(boxes, valid, strict=True)]

    def losses_and_proposals(self, x: tuple[Tensor], truth: GroundTruth, cfg: ConfigDict
                             ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Losses; proposals (N, P, 4), and which of them there are, bool (N, P)."""
        cls_scores, bbox_preds = self(x)
        return (self.losses(cls_scores, bbox_preds, truth),
                *self.padded_proposals(cls_scores, bbox_preds, truth.sizes, cfg))

    @torch.no_grad()
    def padded_proposals(self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], sizes: Tensor,
                         cfg: ConfigDict) -> tuple[Tensor, Tensor]:
        """Proposals (N, P, 4), best first, zeros where there is none, and which of them there are, bool (N, P).

        Args:
            sizes: (N, 2), width and height of the images.
        """
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
        boxes = self.coder(self.anchors(cls_scores)[places], take(flat(bbox_preds, 4), places), sizes[:, None])
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
        if torch.compiler.is_compiling():  # what is kept would have to be compared with what was, in each step
            return torch.cat(self.prior_generator.grid_priors([each.shape[2:] for each in maps], maps[0].dtype,
                                                              maps[0].device))
        levels = []
        for level, (rows, columns) in enumerate(each.shape[2:] for each in maps):
            grid = self.grids.get(level)
            if grid is None or grid.device != maps[0].device or rows > grid.shape[0] or columns > grid.shape[1]:
                size = (rows, columns) if grid is None else (max(rows, grid.shape[0]), max(columns, grid.shape[1]))
                grid = self.prior_generator.single_level_grid_priors(size, level, device=maps[0].device)
                self.grids[level] = grid = grid.view(*size, -1, 4)
            levels.append(grid[:rows, :columns].reshape(-1, 4))
        return torch.cat(levels)

    def inside(self, anchors: Tensor, truth: GroundTruth) -> Tensor:
        """Which anchors of each image may be matched, bool (N, A): mmdet's valid flags and ``allowed_border``."""
        border = self.train_cfg['allowed_border']
        size, padded = truth.sizes[:, None], truth.padded_sizes[:, None]
        corners, others = anchors[None, :, :2], anchors[None, :, 2:]
        inside = (corners + others) * 0.5 < padded - 0.5  # centres are whole numbers, up to rounding
        if border >= 0:
            inside = inside & (corners >= -border) & (others < size + border)
        return inside.all(-1)


def flat(maps: Sequence[Tensor], channels: int) -> Tensor:
    """(N, k * channels, H, W) of each level as one (N, A, channels), in the order of mmdet's anchors."""
    return torch.cat([each.permute(0, 2, 3, 1).reshape(each.shape[0], -1, channels) for each in maps], 1)


def detector_losses(detector: TwoStageDetector, images: Tensor, truth: GroundTruth) -> dict[str, Tensor]:
    """Losses of images (N, 3, H, W): mmdet's ``TwoStageDetector.loss``, as a function of tensors of fixed shapes."""
    x = detector.extract_feat(images)
    cfg = detector.train_cfg.get('rpn_proposal', detector.test_cfg.rpn)
    losses, boxes, valid = detector.rpn_head.losses_and_proposals(x, truth, cfg)
    return {**losses, **detector.roi_head.losses(x, boxes, valid, truth)}


def detector_truth(detector: TwoStageDetector, samples: list, few_shapes: bool = False) -> GroundTruth:
    """What `detector_losses` needs of a batch's data samples; see `ground_truth`."""
    if not hasattr(detector.roi_head, 'losses'):
        raise UserError(OTHER_ROI_HEAD)
    return ground_truth(*unpack_gt_instances(samples), detector.with_mask, few_shapes)


share_samples_with_rpn(lambda detector, images, samples: detector_losses(detector, images,
                                                                         detector_truth(detector, samples)))
