"""Run-length encoded masks under a resize, crop, flip and pad, decoded only where a pixel is asked for.

A mask is COCO's run-length code: lengths of runs of zeros and ones in turn, down the columns, zeros first. Nearest
resizing, cropping, flipping and padding choose rows and columns, so any sequence of them is two index arrays, monotone
because none of them reorders but a flip, which reverses. An index outside the source stands for padding.
"""
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np


class Block(NamedTuple):
    """The part of one mask that can have ones.

    Args:
        row, column: of its first pixel.
        pixels: uint8 (columns, rows), transposed, as run-length code is.
    """
    row: int
    column: int
    pixels: np.ndarray


def nearest_indices(length: int, new_length: int) -> np.ndarray:
    """Which of ``length`` pixels OpenCV's nearest resizing takes for each of ``new_length``, int64.

    Asked of OpenCV, because its rounding differs between versions; as two bytes, because it may between types.
    """
    indices = np.arange(length)
    halves = np.stack([indices & 255, indices >> 8]).astype(np.uint8)
    low, high = cv2.resize(halves, (new_length, 2), interpolation=cv2.INTER_NEAREST).astype(np.int64)
    return low + 256 * high


def decode(counts: Sequence[np.ndarray], height: int, width: int, rows: np.ndarray,
           columns: np.ndarray) -> list[Block | None]:
    """Decode masks at the chosen rows and columns.

    All masks are decoded together: one array operation on the runs of fifty objects takes as long as on those of one.

    Args:
        counts: run lengths of each mask, which add up to height * width.
        height, width: of the source, in pixels.
        rows, columns: of the source, ascending; height or width (or more) for padding.

    Returns:
        a block for each mask, None where no chosen pixel can be one.
    """
    if not counts:
        return []
    runs, sizes = np.concatenate(counts), np.array([len(one) for one in counts])
    first = np.cumsum(sizes) - sizes
    mask = np.repeat(np.arange(len(counts)), sizes)
    value = ((np.arange(len(runs)) - first[mask]) & 1).astype(np.uint8)
    ends = np.cumsum(runs) - mask * (height * width)

    left, top, right, bottom = _bounds(mask, value, runs, ends, len(counts), height)
    row_rank, column_rank = _rank(rows, height), _rank(columns, width)
    row, column = row_rank[top], column_rank[left]
    tall, wide = row_rank[bottom] - row, column_rank[right] - column
    seen = (tall > 0) & (wide > 0)
    left = np.where(seen, columns[np.minimum(column, len(columns) - 1)], 0)
    right = np.where(seen, columns[column + wide - 1] + 1, 0)
    area = np.where(seen, tall * (right - left), 0)

    # where each run ends, counted in the chosen rows of the source's columns between left and right
    x, y = np.divmod(ends, height)
    inside = np.clip(row_rank[y] - row[mask], 0, tall[mask])
    inside = np.clip((x - left[mask]) * tall[mask] + inside, 0, area[mask]) + (np.cumsum(area) - area)[mask]
    pixels = np.repeat(value, np.diff(inside, prepend=0))
    blocks = []
    for index, start in enumerate(np.cumsum(area) - area):
        if not seen[index]:
            blocks.append(None)
            continue
        block = pixels[start:start + area[index]].reshape(-1, tall[index])
        chosen = columns[column[index]:column[index] + wide[index]] - left[index]
        blocks.append(Block(int(row[index]), int(column[index]), block.take(chosen, axis=0)))
    return blocks


def _bounds(mask: np.ndarray, value: np.ndarray, runs: np.ndarray, ends: np.ndarray, number: int,
            height: int) -> np.ndarray:
    """Left, top, right and bottom (the last two exclusive) of each mask's ones, (4, number); zeros without any."""
    bounds = np.zeros((4, number), np.int64)
    ones = np.flatnonzero((value == 1) & (runs > 0))
    if not len(ones):
        return bounds
    first = np.flatnonzero(np.diff(mask[ones], prepend=-1))
    (left, top), (right, bottom) = np.divmod(ends[ones] - runs[ones], height), np.divmod(ends[ones] - 1, height)
    top, bottom = np.where(left == right, top, 0), np.where(left == right, bottom, height - 1)
    bounds[:, mask[ones[first]]] = (np.minimum.reduceat(left, first), np.minimum.reduceat(top, first),
                                    np.maximum.reduceat(right, first) + 1, np.maximum.reduceat(bottom, first) + 1)
    return bounds


def _rank(chosen: np.ndarray, length: int) -> np.ndarray:
    """How many of the chosen indices lie before each of 0 .. length."""
    return np.searchsorted(chosen, np.arange(length + 1))
