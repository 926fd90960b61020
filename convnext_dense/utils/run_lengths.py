"""COCO run-length masks written and read by object, never by image: memory follows the objects.

A mask is the lengths of runs of zeros and ones in turn, zeros first, down the columns. Compressed, as pycocotools has
it, it is a dict of ``size`` (height, width) and ``counts`` (bytes).
"""
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask


class Crop(NamedTuple):
    """The part of a mask that can have ones.

    Args:
        top, left: of its first pixel, in the image.
        pixels: bool (h, w).
    """
    top: int
    left: int
    pixels: np.ndarray


def encode_crop(pixels: np.ndarray, top: int, left: int, size: tuple[int, int]) -> dict:
    """Run lengths of a mask that is given by a part of it; the same bytes as of pycocotools for the whole mask.

    Args:
        pixels: bool (h, w), inside the image.
        top, left: place of the first pixel.
        size: (height, width) of the image.
    """
    height, width = (int(side) for side in size)
    rows = len(pixels)
    columns = np.zeros((pixels.shape[1], rows + 1), np.int8)  # a zero ends the runs of every column
    columns[:, :rows] = pixels.T
    column, row = np.divmod(np.flatnonzero(np.diff(columns.ravel(), prepend=0)), rows + 1)
    ends = (left + column.astype(np.int64)) * height + top + row  # where runs of zeros and of ones end, in turn
    if rows == height:  # runs go on in the next column
        joined = np.flatnonzero(ends[1:-1:2] == ends[2::2])
        ends = np.delete(ends, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    if not len(ends) or ends[-1] < height * width:
        ends = np.append(ends, height * width)
    return coco_mask.frPyObjects(dict(size=[height, width], counts=np.diff(ends, prepend=0)), height, width)


def decode_counts(counts: bytes) -> np.ndarray:
    """Lengths of the runs, int64, from compressed ones that are known to be well-formed."""
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48  # five bits of a number and whether it goes on
    ends = np.flatnonzero((digits & 32) == 0)
    starts = np.append(0, ends[:-1] + 1)
    place = np.arange(len(digits)) - np.repeat(starts, ends + 1 - starts)
    runs = np.add.reduceat((digits & 31) << 5 * place, starts)
    runs -= np.where(digits[ends] & 16, 1 << 5 * (place[ends] + 1), 0)  # two's complement
    # from the fourth on, a number is the difference to the run two places before
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def decode_crop(rle: dict) -> Crop:
    """The part of a mask that has ones, from compressed run lengths."""
    height = int(rle['size'][0])
    left, top, wide, high = (int(value) for value in coco_mask.toBbox(rle))
    counts = rle['counts']
    ends = np.cumsum(decode_counts(counts.encode('ascii') if isinstance(counts, str) else counts))
    ends = np.clip(ends - left * height, 0, wide * height)  # in the columns that have ones
    pixels = np.repeat(np.arange(len(ends)) % 2 == 1, np.diff(ends, prepend=0))
    return Crop(top, left, pixels.reshape(wide, height)[:, top:top + high].T)


class EncodedMasks(Sequence):
    """Masks of one image as run lengths, decoded one at a time.

    ``masks[3]`` is a bool array (H, W); ``masks[keep]``, with a slice or an array of indices or bools, are some of
    them, still encoded. ``np.asarray(masks)`` is bool (N, H, W), which can be far larger than the image.

    Args:
        rles: compressed run lengths of each mask.
        size: (height, width) of the image.
    """

    def __init__(self, rles: Sequence[dict], size: tuple[int, int]):
        self.rles, self.size = list(rles), tuple(size)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self), *self.size)

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of each mask, int64 (N,)."""
        # one at a time: pycocotools 2.0.11 with numpy 2 fails on lists of more than 255
        return np.array([coco_mask.area(rle) for rle in self.rles], np.int64)

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, index):
        if isinstance(index, int | np.integer):
            return coco_mask.decode(self.rles[index]).astype(bool)
        return EncodedMasks([self.rles[i] for i in np.arange(len(self))[index]], self.size)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        masks = np.zeros(self.shape, bool)
        for target, mask in zip(masks, self, strict=True):
            target[:] = mask
        return masks if dtype is None else masks.astype(dtype)

    def to_json(self, index: int) -> dict:
        """The run lengths of a mask as json can write them."""
        counts = self.rles[index]['counts']
        return dict(size=[int(side) for side in self.size],
                    counts=counts if isinstance(counts, str) else counts.decode('ascii'))

    def reduced(self, factor: int) -> 'EncodedMasks':
        """Every `factor`-th row and column, from the first on."""
        size = tuple(-(-side // factor) for side in self.size)
        reduced = []
        for rle in self.rles:
            top, left, pixels = decode_crop(rle)
            pixels = pixels[-top % factor::factor, -left % factor::factor]
            reduced.append(encode_crop(pixels, -(-top // factor), -(-left // factor), size))
        return EncodedMasks(reduced, size)


def crops(masks: np.ndarray | EncodedMasks) -> Iterator[Crop]:
    """The parts that have ones, of masks (N, H, W) or `EncodedMasks`."""
    if isinstance(masks, EncodedMasks):
        yield from map(decode_crop, masks.rles)
        return
    for mask in masks:
        left, top, wide, high = cv2.boundingRect(np.asarray(mask, bool).view(np.uint8))
        yield Crop(top, left, mask[top:top + high, left:left + wide])


def encode_masks(masks: np.ndarray, top: int, left: int, size: tuple[int, int]) -> list[dict]:
    """Run lengths of masks (N, h, w), each given by the same part of an image of that size."""
    return [encode_crop(crop.pixels, top + crop.top, left + crop.left, size) for crop in crops(masks)]
