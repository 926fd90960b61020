"""Masks of boxes pasted into an image on a CPU: mmdet's pixels, without a dozen small operators for every mask."""
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def paste_masks(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Masks at the size of an image, the same bits as of mmdet's ``_do_paste_mask`` one by one.

    The places that are sampled are computed in numpy, by the same float32 operations in the same order; the samples
    are taken by the same ``grid_sample``.

    Args:
        probabilities: (N, 1, h, w) within the boxes, on the CPU.
        boxes: (N, 4) as x1, y1, x2, y2, in pixels of the image; of boxes beyond it the part inside, which may be empty.
        size: (height, width) of the image.
        threshold: from which a pixel belongs to the mask.

    Returns:
        bool (N, height, width).
    """
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    probabilities = probabilities.to(torch.float32)
    boxes = boxes.to(torch.float32).numpy()
    first = np.maximum(np.floor(boxes[:, :2]) - 1, 0).astype(np.int32)
    last = np.minimum(np.ceil(boxes[:, 2:]) + 1, np.array(size[::-1])).astype(np.int32)
    centres = np.arange(max(size), dtype=np.float32) + np.float32(0.5)
    for index, ((x1, y1, x2, y2), (left, top), (right, bottom)) in enumerate(zip(boxes, first, last, strict=True)):
        if left >= right or top >= bottom:
            continue
        grid = np.empty((1, bottom - top, right - left, 2), np.float32)
        grid[..., 0] = relative(centres[left:right], x1, x2)
        grid[..., 1] = relative(centres[top:bottom], y1, y2)[:, None]
        sampled = F.grid_sample(probabilities[index:index + 1], torch.from_numpy(grid), align_corners=False)
        masks[index, top:bottom, left:right] = sampled[0, 0] >= threshold
    return masks


def relative(centres: np.ndarray, low: np.float32, high: np.float32) -> np.ndarray:
    """Pixel centres as ``grid_sample`` counts, -1 to 1 from ``low`` to ``high``; 0 where the box has no extent."""
    with np.errstate(divide='ignore', invalid='ignore'):
        places = (centres - low) / (high - low) * np.float32(2) - np.float32(1)
    places[np.isinf(places)] = 0
    return places


__all__ = ['paste_masks']
