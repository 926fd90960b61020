"""NMS, soft-NMS and NMS-match as mmcv's operators of the same names, on torchvision and numpy."""
import numpy as np
import torch
from torch import Tensor

from .common import check_devices, wide

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2  # mmcv/ops/nms.py, soft_nms: method_dict


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that stay, best score first; a box goes if its IoU with a better one is > the threshold.

    Half-precision input is compared in float32. With offset 1 the work is done on the CPU.

    Args:
        boxes: (n, 4) as x1, y1, x2, y2, in pixels.
        scores: (n,). Among equal ones the box that comes first in the input wins.
        iou_threshold: in [0, 1].
        offset: 0, or 1 where a box of x1 == x2 is one pixel wide.
    Returns:
        (kept,) int64.
    Raises:
        ValueError: boxes and scores are on different devices.
    """
    check_devices('nms', boxes=boxes, scores=scores)
    dtype = wide(boxes, scores)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    # The kernel takes the threshold in float32; torchvision compares in float64, where 0.6 and 3 / 5 differ.
    threshold = float(np.float32(iou_threshold))
    if offset == 0:
        import torchvision.ops
        return torchvision.ops.nms(boxes, scores, threshold)
    order = scores.argsort(descending=True, stable=True)
    table = _table(boxes[order], offset)
    left, kept = np.arange(len(boxes)), []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[~(_iou(table, best, left, offset) > threshold)]
    return order[torch.as_tensor(kept, dtype=torch.long, device=order.device)]


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float,
            method: int, offset: int) -> Tensor:
    """Soft-NMS: a box's score shrinks with its overlap with better ones, and it goes below ``min_score``.

    In numpy, because the interface is for the CPU only and the inner step is small. Ties are broken as in mmcv.

    Args:
        boxes: (n, 4) as x1, y1, x2, y2, in pixels.
        scores: (n,).
        dets: (n, 5), receives the boxes that stay and their new scores, best first.
        iou_threshold: in [0, 1]; naive and linear leave scores alone below it.
        sigma: width of the gaussian method.
        min_score: boxes below it go, except that the best one always stays.
        method: NAIVE, LINEAR or GAUSSIAN.
        offset: as in :func:`nms`.
    Returns:
        (kept,) int64, indices into ``boxes`` in the order of ``dets``.
    """
    dtype = wide(boxes, scores)
    table = _table(boxes.to(dtype), offset)
    values = scores.detach().to(dtype).numpy().copy()
    real = values.dtype.type
    threshold, sigma, min_score = real(np.float32(iou_threshold)), real(np.float32(sigma)), real(np.float32(min_score))
    alive, done = np.arange(len(values)), 0  # alive[:done] are chosen, alive[done:] wait
    while done < len(alive):
        waiting = values[alive[done:]]
        # Two boxes without area overlap by 0 / 0; the kernel passes over a NaN unless it stands first.
        best = done + (0 if np.isnan(waiting[0]) else np.nanargmax(waiting))
        alive[[done, best]] = alive[[best, done]]
        rest = alive[done + 1:]
        overlap = _iou(table, alive[done], rest, offset)
        if method == GAUSSIAN:  # exp in float64: the nearest float32, as the C library's nearly always is
            weight = np.exp(np.float64(-(overlap * overlap) / sigma)).astype(real)
        else:
            weight = np.where(overlap >= threshold, 1 - overlap if method == LINEAR else real(0), real(1))
        values[rest] *= weight
        alive = np.concatenate([alive[:done + 1], _drop(rest, values[rest] < min_score)])
        done += 1
    kept = torch.from_numpy(alive)
    dets[:len(kept), :4] = boxes[kept].detach()
    dets[:len(kept), 4] = torch.from_numpy(values)[kept]
    return kept


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of boxes that NMS would merge, each led by the box that stays, the others in the order of their scores.

    Args:
        dets: (n, 5) as x1, y1, x2, y2, score, on the CPU; among equal scores the box that comes first leads.
        iou_threshold: in [0, 1]; a box joins the first group whose leader it overlaps by at least this much.
    Returns:
        indices into ``dets``, best group first.
    """
    dets = dets.detach().to(wide(dets))
    order = dets[:, 4].argsort(descending=True, stable=True)
    table = _table(dets[order, :4], 0)
    threshold = np.float32(iou_threshold)
    left, groups = np.arange(len(order)), []
    while left.size:
        leader, left = left[0], left[1:]
        joins = _iou(table, leader, left, 0) >= threshold
        groups.append(order[[leader, *left[joins]]].tolist())
        left = left[~joins]
    return groups


def _drop(items: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """``items`` without the marked ones, the last kept item moved into each gap as the kernel does (order: ties)."""
    size = len(items) - np.count_nonzero(drop)
    kept = items[:size].copy()
    kept[drop[:size]] = items[size:][~drop[size:]][::-1]
    return kept


def _table(boxes: Tensor, offset: int) -> np.ndarray:
    """(5, n): x1, y1, x2, y2 and area of each box."""
    x1, y1, x2, y2 = boxes.detach().cpu().numpy().T
    return np.stack([x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)])


def _iou(table: np.ndarray, one: int, others: np.ndarray, offset: int) -> np.ndarray:
    """IoU of box ``one`` with ``others``, in the kernel's order of operations so that rounding agrees."""
    (x1, y1, x2, y2, area), (xs1, ys1, xs2, ys2, areas) = table[:, one], table[:, others]
    zero = table.dtype.type(0)
    width = np.maximum(zero, np.minimum(x2, xs2) - np.maximum(x1, xs1) + offset)
    height = np.maximum(zero, np.minimum(y2, ys2) - np.maximum(y1, ys1) + offset)
    shared = width * height
    with np.errstate(divide='ignore', invalid='ignore'):
        return shared / (area + areas - shared)
