"""Masks as polygons from which the very same pixels come back.

The outline of a mask runs along the edges of its pixels, so its corners are whole numbers, and pycocotools fills it to
the mask it was. Rings (parts and holes) can be joined to one polygon by lines that are followed there and back: these
enclose nothing.
"""
import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ..checks.segmentations import run_length_counts


def decode(segmentation: list | dict, size: tuple[int, int]) -> np.ndarray:
    """Mask (H, W), uint8, of a COCO segmentation in an image of size (width, height).

    Raises:
        ValueError: it cannot be decoded, or is of another size.
    """
    width, height = size
    if isinstance(segmentation, list):
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width)))
    try:
        counts = run_length_counts(segmentation)
    except (KeyError, TypeError, UnicodeEncodeError) as error:
        raise ValueError('run lengths that cannot be decoded') from error
    if list(segmentation.get('size', [])) != [height, width] or counts.min(initial=0) < 0 \
            or counts.sum() != width * height:
        raise ValueError('run lengths for another size than that of the image')
    return np.repeat(np.arange(len(counts), dtype=np.uint8) % 2, counts).reshape(width, height).T


def rings(mask: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outlines of the parts of a mask, and of their holes: (N, 2) corners each."""
    twice = np.ascontiguousarray(mask, np.uint8).repeat(2, 0).repeat(2, 1)
    contours, order = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outer, holes = [], []
    for contour, (_, _, _, parent) in zip(contours, order[0] if contours else (), strict=True):
        # of the pixels 2x and 2x + 1, the first is at the left edge x, the second at the right edge x + 1
        corners = (contour[:, 0] + 1) // 2
        corners = corners[(corners != np.roll(corners, 1, 0)).any(1)]
        before, after = corners - np.roll(corners, 1, 0), np.roll(corners, -1, 0) - corners
        straight = (before[:, 0] * after[:, 1] == before[:, 1] * after[:, 0]) & ((before * after).sum(1) > 0)
        (outer if parent < 0 else holes).append(corners[~straight])
    return outer, holes


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """One polygon of several rings; each is reached from the nearest corner of those before it, and left there."""
    whole = np.asarray(parts[0])
    for part in map(np.asarray, parts[1:]):
        distances = ((whole[:, None] - part[None]) ** 2).sum(-1)
        here, there = np.unravel_index(distances.argmin(), distances.shape)
        whole = np.concatenate([whole[:here + 1], part[there:], part[:there + 1], whole[here:]])
    return whole


def polygons_of(segmentation: list | dict, size: tuple[int, int]) -> tuple[list[list[float]], bool]:
    """The polygons of a segmentation, each [x1, y1, x2, y2, ...], and whether holes had to be left out of them."""
    if isinstance(segmentation, list):
        return segmentation, False
    outer, holes = rings(decode(segmentation, size))
    return [ring.ravel().tolist() for ring in outer], bool(holes)


def single_polygon(segmentation: list | dict, size: tuple[int, int]) -> list[float]:
    """One polygon with the pixels of a segmentation, of several parts and with holes, too.

    Raises:
        ValueError: it has no pixel.
    """
    if isinstance(segmentation, list) and len(segmentation) == 1:
        return segmentation[0]
    outer, holes = rings(decode(segmentation, size))
    if not outer:
        raise ValueError('mask without a pixel')
    return joined([*outer, *holes]).ravel().tolist()
