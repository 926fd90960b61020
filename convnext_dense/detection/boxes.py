"""Boxes as plain tensor functions of fixed shapes, batched over images: what graphs are made of. Needs torch alone."""
import math

import numpy as np
import torch
from torch import Tensor, nn


class Coder(nn.Module):
    """mmdet's DeltaXYWHBBoxCoder, batched."""

    def __init__(self, coder: nn.Module):
        super().__init__()
        self.clip = coder.clip_border
        self.register_buffer('means', torch.tensor(coder.means, dtype=torch.float32), persistent=False)
        self.register_buffer('stds', torch.tensor(coder.stds, dtype=torch.float32), persistent=False)

    def forward(self, boxes: Tensor, deltas: Tensor, limits: Tensor | None) -> Tensor:
        """Boxes moved and scaled by deltas, as `decode_boxes`."""
        return decode_boxes(boxes, deltas, self.means, self.stds, limits if self.clip else None)

    def encode(self, boxes: Tensor, targets: Tensor) -> Tensor:
        """Deltas (..., 4) that move boxes (..., 4) to target boxes (..., 4)."""
        (x, y), (width, height) = centres(boxes), sizes(boxes)
        (target_x, target_y), (target_width, target_height) = centres(targets), sizes(targets)
        deltas = torch.stack([(target_x - x) / width, (target_y - y) / height,
                              (target_width / width).log(), (target_height / height).log()], -1)
        return (deltas - self.means) / self.stds


def centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of the centres of boxes (..., 4)."""
    return ((boxes[..., :2] + boxes[..., 2:]) * 0.5).unbind(-1)


def sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Widths and heights of boxes (..., 4)."""
    return (boxes[..., 2:] - boxes[..., :2]).unbind(-1)


def decode_boxes(boxes: Tensor, deltas: Tensor, means: Tensor, stds: Tensor, limits: Tensor | None,
                 ratio_clip: float = 16 / 1000) -> Tensor:
    """Boxes moved and scaled by predicted deltas: mmdet's ``delta2bbox``, in its order of operations.

    Args:
        boxes: (..., 4) as x1, y1, x2, y2.
        deltas: (..., 4) as dx, dy, dw, dh, normalised.
        means, stds: (4,), of the deltas.
        limits: (2,) or (..., 1, 2) width and height to clip to, or None.
        ratio_clip: a side grows or shrinks by at most this factor.
    """
    deltas = deltas * stds + means
    centre, size = (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]
    bound = abs(math.log(ratio_clip))
    centre = centre + size * deltas[..., :2]
    half = size * deltas[..., 2:].clamp(-bound, bound).exp() * 0.5
    corners = torch.cat([centre - half, centre + half], -1)
    return corners if limits is None else corners.clamp(min=0).minimum(torch.cat([limits, limits], -1))


def apart(boxes: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
    """Boxes (N, n, 4) shifted by group (N, n), so that those of different groups of an image do not overlap.

    The shift is that of mmcv's ``batched_nms``, so that rounding, and with it non-maximum suppression, agrees.

    Args:
        valid: bool (N, n); other boxes do not count for the size of the shift.
    """
    largest = torch.where(valid[..., None], boxes, 0).amax((1, 2))
    return boxes + (groups.to(boxes) * (largest + 1)[:, None])[..., None]


# its result has a size that depends on values: a CUDA graph ends before it (torch 2.4 cannot be told)
UNSAFE = {'tags': (torch._C.Tag.cudagraph_unsafe,)} if hasattr(torch._C.Tag, 'cudagraph_unsafe') else {}


@torch.library.custom_op('convnext_dense::nms_mask', mutates_args=(), **UNSAFE,
                         schema='(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor')
def nms_mask(boxes, scores, iou_threshold):
    """Non-maximum suppression in each row of boxes (N, n, 4) with scores (N, n).

    Among equal scores the box that comes first wins.

    Returns:
        bool (N, n), the boxes that stay.
    """
    from torchvision.ops import nms  # the backbone alone does without torchvision
    keep = torch.zeros_like(scores, dtype=torch.bool)
    threshold = float(np.float32(iou_threshold))  # mmcv's kernels compare in float32
    for row, row_boxes, row_scores in zip(keep, boxes, scores, strict=True):
        row[nms(row_boxes, row_scores, threshold)] = True
    return keep


@nms_mask.register_fake
def nms_mask_shape(boxes, scores, iou_threshold):
    return torch.empty_like(scores, dtype=torch.bool)


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest scores of each row, in order, and their places: (N, n) to two of (N, count).

    Of equal ones the first comes first. Rows of fewer scores are filled up with -inf and the place of the last.
    """
    length = scores.shape[1]
    filled = torch.cat([scores, scores.new_full((1, count), -math.inf).expand(scores.shape[0], -1)], 1)
    if torch.onnx.is_in_onnx_export():  # ONNX's TopK gives the first of equal ones first
        values, places = filled.topk(count)
    else:
        values, places = (found[:, :count] for found in filled.sort(dim=1, descending=True, stable=True))
    return values, places.clamp(max=length - 1)


def take(values: Tensor, places: Tensor) -> Tensor:
    """``values`` (N, n, ...) at places (N, k): (N, k, ...)."""
    index = places.reshape(*places.shape, *([1] * (values.dim() - 2)))
    return values.gather(1, index.expand(*places.shape, *values.shape[2:]))
