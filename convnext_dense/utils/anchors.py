"""How well a grid of anchors covers boxes."""
from collections.abc import Sequence

import numpy as np


def best_ious(boxes: np.ndarray, sizes: np.ndarray, levels: Sequence[tuple[float, np.ndarray]],
              offset: float = 0.0) -> np.ndarray:
    """IoU of each box with the anchor that overlaps it most.

    Only the position next to the centre of a box is looked at: along each axis an anchor overlaps the box most from
    there, so its intersection and its IoU are the largest.

    Args:
        boxes: (N, 4) left, top, right, bottom in pixels.
        sizes: (N, 2) width and height of the image of each box; anchors are centred inside it.
        levels: for each feature map its stride in pixels and its anchors' (A, 2) widths and heights.
        offset: of the first centre from the image's corner, in strides.

    Returns:
        (N,) 0 to 1.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    area = np.prod(high - low, axis=1)
    best = np.zeros(len(boxes))
    for stride, shapes in levels:
        nearest = np.rint((low + high) / 2 / stride - offset)
        centre = (np.clip(nearest, 0, np.ceil(sizes / stride) - 1) + offset) * stride
        for shape in shapes:
            sides = np.minimum(high, centre + shape / 2) - np.maximum(low, centre - shape / 2)
            shared = np.prod(np.clip(sides, 0, None), axis=1)
            best = np.maximum(best, shared / (area + np.prod(shape) - shared))
    return best
