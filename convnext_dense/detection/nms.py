"""Non-maximum suppression that ends with the last box that is asked for."""
import torch
from mmcv.ops import nms
from mmengine.config import ConfigDict
from torch import Tensor, nn


def first_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, number: int) -> tuple[Tensor, Tensor]:
    """mmcv's ``nms`` with at least the first ``number`` boxes of its result.

    A box is removed by boxes with a higher score alone. So NMS of the best boxes gives the beginning of NMS of all;
    more are taken where that is too short.

    Args:
        boxes: (n, 4) as x1, y1, x2, y2.
        scores: (n,).
        iou_threshold: as of ``mmcv.ops.nms``.
        number: boxes that are needed, above 0.

    Returns:
        (k, 5) boxes that stay, with their scores, best first, and their (k,) indices.
    """
    tried = 10 * number
    while True:
        if tried >= len(scores):
            return nms(boxes, scores, iou_threshold)
        least = scores.topk(tried).values[-1]
        best = (scores >= least).nonzero()[:, 0]  # in their order, in which equal scores are taken
        found, kept = nms(boxes[best], scores[best], iou_threshold)
        if len(kept) >= number:
            return found, best[kept]
        tried *= 4


def stop_nms_early(model: nn.Module) -> None:
    """Have a two-stage detector of mmdet use `first_nms` for its results, in place, where its config has plain NMS."""
    cfg = getattr(getattr(model, 'roi_head', None), 'test_cfg', None)
    if cfg is None or cfg.get('max_per_img', -1) <= 0 or set(cfg.get('nms', ())) - {'type', 'iou_threshold'}:
        return
    if cfg.get('nms', {}).get('type') == 'nms':
        # boxes of all classes, moved apart, in one call; mmcv would call it by class beyond 10,000 boxes
        early = dict(type=first_nms, iou_threshold=cfg.nms.iou_threshold, number=cfg.max_per_img,
                     split_thr=torch.iinfo(torch.int64).max)
        model.roi_head.test_cfg = ConfigDict({**cfg, 'nms': early})  # the config itself, which is saved, stays


__all__ = ['first_nms', 'stop_nms_early']
