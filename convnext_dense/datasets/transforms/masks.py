"""mmdet's BitmapMasks whose pixels are made once, after the last transform, from run-length code."""
from collections.abc import Sequence

import cv2
import mmcv
import numpy as np
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes, get_box_type
from mmdet.structures.mask import BitmapMasks

from .run_lengths import Block, decode, nearest_indices


class RunLengthMasks(BitmapMasks):
    """BitmapMasks that stay run-length encoded until ``masks`` is read, with the same values then.

    Nearest rescaling and resizing, flipping, cropping, padding with zeros and indexing only choose rows, columns and
    objects. Everything else that BitmapMasks does reads ``masks``, (N, height, width) uint8, which from then on is
    what the object holds. Until then a pickle has each object's part of the image, not N whole images of pixels.

    Built from an array, as BitmapMasks is, or by `from_counts`.
    """

    @classmethod
    def from_counts(cls, counts: Sequence[np.ndarray], height: int, width: int) -> 'RunLengthMasks':
        """Masks of an image from the run lengths of each, int64, which add up to height * width."""
        return cls._lazy(list(counts), (height, width), np.arange(height), np.arange(width))

    @classmethod
    def _lazy(cls, counts: list[np.ndarray], source: tuple[int, int], rows: np.ndarray, columns: np.ndarray,
              blocks: list[Block | None] | None = None) -> 'RunLengthMasks':
        """
        Args:
            counts: run lengths of each object.
            source: height and width that the code is of.
            rows, columns: which of the source's each row and column is; outside of the source for padding.
            blocks: what `_blocks` has returned for the same masks before, whichever way round.
        """
        masks = cls.__new__(cls)
        masks.height, masks.width = len(rows), len(columns)
        masks._pixels, masks._counts, masks._source = None, counts, source
        masks._rows, masks._columns, masks._cached = rows, columns, blocks
        return masks

    @property
    def masks(self) -> np.ndarray:
        """The pixels, uint8 (N, height, width)."""
        if self._pixels is None:
            self._pixels = self._paste()
            self._counts = self._source = self._rows = self._columns = self._cached = None
        return self._pixels

    @masks.setter
    def masks(self, pixels: np.ndarray) -> None:
        self._pixels = pixels

    def __getstate__(self) -> dict:
        if self._pixels is None:
            self._blocks()  # decoded in the data loader's worker, which pickles, and not where the model waits
        return self.__dict__

    def __len__(self) -> int:
        return len(self._counts if self._pixels is None else self._pixels)

    def __getitem__(self, index) -> BitmapMasks:
        if self._pixels is not None:
            return super().__getitem__(index)
        chosen = np.arange(len(self._counts))[index].reshape(-1)
        blocks = None if self._cached is None else [self._cached[i] for i in chosen]
        return self._lazy([self._counts[i] for i in chosen], self._source, self._rows, self._columns, blocks)

    def rescale(self, scale: float | tuple[int, int], interpolation: str = 'nearest') -> BitmapMasks:
        """As BitmapMasks."""
        if self._pixels is not None or interpolation != 'nearest':
            return super().rescale(scale, interpolation)
        width, height = mmcv.rescale_size((self.width, self.height), scale)
        return self.resize((height, width))

    def resize(self, out_shape: tuple[int, int], interpolation: str = 'nearest') -> BitmapMasks:
        """As BitmapMasks."""
        if self._pixels is not None or interpolation != 'nearest':
            return super().resize(out_shape, interpolation)
        return self._lazy(self._counts, self._source, self._rows[nearest_indices(self.height, out_shape[0])],
                          self._columns[nearest_indices(self.width, out_shape[1])])

    def flip(self, flip_direction: str = 'horizontal') -> BitmapMasks:
        """As BitmapMasks."""
        if self._pixels is not None or flip_direction not in ('horizontal', 'vertical', 'diagonal'):
            return super().flip(flip_direction)
        rows = self._rows if flip_direction == 'horizontal' else self._rows[::-1]
        columns = self._columns if flip_direction == 'vertical' else self._columns[::-1]
        return self._lazy(self._counts, self._source, rows, columns, self._cached)

    def crop(self, bbox: np.ndarray) -> BitmapMasks:
        """As BitmapMasks."""
        left, top, right, bottom = np.clip(bbox, 0, np.tile((self.width, self.height), 2))
        if self._pixels is not None or left >= right or top >= bottom:
            return super().crop(bbox)
        return self._lazy(self._counts, self._source, self._rows[top:bottom], self._columns[left:right])

    def pad(self, out_shape: tuple[int, int], pad_val: int = 0) -> BitmapMasks:
        """As BitmapMasks."""
        below, right = out_shape[0] - self.height, out_shape[1] - self.width
        if self._pixels is not None or pad_val != 0 or below < 0 or right < 0:
            return super().pad(out_shape, pad_val)
        blocks = self._cached
        if blocks is not None:  # padding comes first where the other way round is the straight one
            row, column = below * _is_reversed(self._rows), right * _is_reversed(self._columns)
            blocks = [block and Block(block.row + row, block.column + column, block.pixels) for block in blocks]
        return self._lazy(self._counts, self._source, _padded(self._rows, below, self._source[0]),
                          _padded(self._columns, right, self._source[1]), blocks)

    def get_bboxes(self, dst_type: str | type = 'hbb') -> BaseBoxes:
        """As BitmapMasks."""
        if self._pixels is not None or get_box_type(dst_type)[1] is not HorizontalBoxes:
            return super().get_bboxes(dst_type)
        boxes = np.zeros((len(self), 4), np.float32)
        for box, block in zip(boxes, self._blocks(), strict=True):
            if block is None:
                continue
            y, x, height, width = cv2.boundingRect(block.pixels)  # transposed
            if width:
                box[:] = block.column + x, block.row + y, block.column + x + width, block.row + y + height
        if _is_reversed(self._columns):
            boxes[:, [0, 2]] = np.where(boxes.any(1)[:, None], self.width - boxes[:, [2, 0]], 0)
        if _is_reversed(self._rows):
            boxes[:, [1, 3]] = np.where(boxes.any(1)[:, None], self.height - boxes[:, [3, 1]], 0)
        return HorizontalBoxes(boxes)

    def _blocks(self) -> list[Block | None]:
        """Each object's pixels, as if nothing was flipped."""
        if self._cached is None:
            rows = self._rows[::-1] if _is_reversed(self._rows) else self._rows
            columns = self._columns[::-1] if _is_reversed(self._columns) else self._columns
            self._cached = decode(self._counts, *self._source, rows, columns)
        return self._cached

    def _paste(self) -> np.ndarray:
        pixels = np.zeros((len(self), self.height, self.width), np.uint8)
        # flipped for good here, because a view the other way round costs numpy ten times OpenCV's time to copy
        flip = {(False, False): None, (False, True): 0, (True, False): 1, (True, True): -1}[
            _is_reversed(self._rows), _is_reversed(self._columns)]
        for mask, block in zip(pixels, self._blocks(), strict=True):
            if block is None:
                continue
            ones = block.pixels if flip is None else cv2.flip(block.pixels, flip)
            width, height = ones.shape
            row = self.height - block.row - height if _is_reversed(self._rows) else block.row
            column = self.width - block.column - width if _is_reversed(self._columns) else block.column
            mask[row:row + height, column:column + width] = cv2.transpose(ones)
        return pixels


def _is_reversed(indices: np.ndarray) -> bool:
    return len(indices) > 0 and indices[0] > indices[-1]


def _padded(indices: np.ndarray, number: int, length: int) -> np.ndarray:
    """Monotone indices with ``number`` more after them that are outside of 0 .. length - 1."""
    return np.concatenate([indices, np.full(number, -1 if _is_reversed(indices) else length)])
