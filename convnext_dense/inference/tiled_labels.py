"""Label maps from class scores of parts of an image, averaged where they overlap. Needs no torch."""
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from .tiling import Tiling, predict_tiles

BLOCK = 32  # side in pixels of what is upsampled at one time


@dataclass
class Scores:
    """Class scores of a part of the image, kept as small as the network gives them.

    The scores of pixel (y, x) are the sum over i and j of ``rows[y, i] * columns[x, j] * values[i, j]``: bilinear
    upsampling, and any sequence of it with cropping, is one matrix for each side. Those of `upsampling` and numpy's
    ``eye`` (for scores that have the size of the part already) will do; no number in them may be negative.

    Args:
        values: float32 (h, w, classes).
        rows: float32 (H, h).
        columns: float32 (W, w).
        top, left: place of the part's first pixel in the tile; in `label_map`, in the image.
    """
    values: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    top: int = 0
    left: int = 0

    @property
    def bottom(self) -> int:
        return self.top + len(self.rows)

    @property
    def right(self) -> int:
        return self.left + len(self.columns)

    @cached_property
    def supports(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last index into `values` that each row, and each column, is made of; two (2, length)."""
        return tuple(np.stack([(matrix > 0).argmax(axis=1),
                               matrix.shape[1] - 1 - (matrix[:, ::-1] > 0).argmax(axis=1)])
                     for matrix in (self.rows, self.columns))

    def window(self, top: int, left: int, bottom: int, right: int) -> 'Scores | None':
        """The scores of a part of the image; None where there are none."""
        ys = slice(max(top - self.top, 0), max(bottom - self.top, 0))
        xs = slice(max(left - self.left, 0), max(right - self.left, 0))
        rows, columns = self.rows[ys], self.columns[xs]
        if not len(rows) or not len(columns):
            return None
        (first_y, last_y), (first_x, last_x) = self.supports[0][:, ys], self.supports[1][:, xs]
        used = slice(first_y.min(), last_y.max() + 1), slice(first_x.min(), last_x.max() + 1)
        return Scores(self.values[used], rows[:, used[0]], columns[:, used[1]], self.top + ys.start,
                      self.left + xs.start)

    def upsampled(self, classes: np.ndarray) -> np.ndarray:
        """Scores of some classes, (H, W, classes)."""
        values = self.values[..., classes]
        rows = (self.rows @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])
        return self.columns @ rows


def bilinear(length: int, new_length: int, align_corners: bool = False) -> np.ndarray:
    """The matrix (new_length, length), float32, of torch's bilinear interpolation along one side."""
    if align_corners:
        places = np.arange(new_length) * ((length - 1) / max(new_length - 1, 1))
    else:
        places = np.maximum((np.arange(new_length) + 0.5) * (length / new_length) - 0.5, 0)
    lower = np.minimum(places.astype(int), length - 1)
    matrix = np.zeros((new_length, length), np.float32)
    matrix[np.arange(new_length), lower] = 1 - (places - lower)
    matrix[np.arange(new_length), np.minimum(lower + 1, length - 1)] += places - lower
    return matrix


def upsampling(scores: np.ndarray, place: tuple[slice, slice], places: Sequence[tuple[slice, slice]],
               size: Sequence[int], padding: Sequence[tuple[int, int]], original: Sequence[int],
               align_corners: bool = False) -> Scores:
    """The scores of a window as part of a tile: upsampled, averaged over windows, padding cut off, and resized.

    Args:
        scores: float32 (h, w, classes) of the window.
        place: of the window in the prepared tile, rows and columns.
        places: of all windows of the tile, which lie in a grid.
        size: (height, width) of the prepared tile.
        padding: pixels that were added, ((top, bottom), (left, right)).
        original: (height, width) of the tile.
    """
    matrices, starts = [], []
    for axis in (0, 1):
        spans = tuple(sorted({(other[axis].start, other[axis].stop) for other in places}))
        matrix = side_matrix(scores.shape[axis], (place[axis].start, place[axis].stop), spans, size[axis],
                             tuple(padding[axis]), original[axis], align_corners)
        seen = np.flatnonzero(matrix.any(axis=1))  # by the window; without a gap
        starts.append(int(seen[0]) if len(seen) else 0)
        matrices.append(matrix[starts[-1]:starts[-1] + len(seen)])
    return Scores(scores, *matrices, *starts)


@lru_cache(maxsize=256)
def side_matrix(length: int, span: tuple[int, int], spans: tuple[tuple[int, int], ...], size: int,
                padding: tuple[int, int], original: int, align_corners: bool) -> np.ndarray:
    """The matrix (original, length) from the scores of a window to a tile, along one side.

    Windows lie in a grid, so the number that see a pixel is a product of numbers by row and by column.

    Args:
        length: of the window's scores.
        span: first pixel and end of the window.
        spans: of all windows.
        size: of the prepared tile.
        padding: pixels before and after the image in it.
        original: pixels of the tile.
    """
    counts = np.zeros(size, np.float32)
    for start, end in spans:
        counts[start:end] += 1
    placed = np.zeros((size, length), np.float32)
    placed[slice(*span)] = bilinear(length, span[1] - span[0], align_corners)
    placed = (placed / counts[:, None])[padding[0]:size - padding[1]]
    return placed if len(placed) == original else bilinear(len(placed), original, align_corners) @ placed


def label_map(parts: Sequence[Scores], size: tuple[int, int]) -> np.ndarray:
    """Labels of an image (height, width): of every pixel, the class with the highest sum of all parts' scores.

    Args:
        parts: that together cover the image; their places are in it.
        size: (height, width).

    Returns:
        (height, width), uint8; uint16 with more than 255 classes.
    """
    labels = _empty(size, parts[0].values.shape[-1])
    for block, index in _blocks(parts, 0, 0, *size):
        labels[index] = block
    return labels


def segment_tiled(image: np.ndarray, tiling: Tiling, scores_of: Callable, together: int = 1) -> np.ndarray:
    """Labels of an image: of every pixel, the class with the highest mean score over the tiles that see it.

    Scores of all classes at the size of the image are never in memory. A block of labels is made as soon as every tile
    that sees it is there; what later blocks need of a tile is kept at the size that the network gives.

    Args:
        image: (H, W, 3), larger than one tile.
        scores_of: list of tiles to list of lists of `Scores`; those of a tile are added up.
        together: tiles that go through `scores_of` in one call.

    Returns:
        (H, W), uint8; uint16 with more than 255 classes.
    """
    height, width = image.shape[:2]
    labels = None
    ends = [dict(zip(starts, [*starts[1:], length], strict=True))
            for starts, length in ((tiling.starts(width), width), (tiling.starts(height), height))]
    pending: list[Scores] = []
    for (x, y, _, _), found in predict_tiles(image, tiling.tiles(height, width), scores_of, together):
        pending += [Scores(part.values, part.rows, part.columns, y + part.top, x + part.left) for part in found]
        if labels is None:
            labels = _empty((height, width), found[0].values.shape[-1])
        right, bottom = ends[0][x], ends[1][y]  # up to the next tile, which sees none of this block
        for block, index in _blocks(pending, y, x, bottom, right):
            labels[index] = block
        pending = [rest for part in pending if (rest := _rest(part, y, bottom, right)) is not None]
    return labels


def _empty(size: tuple[int, int], classes: int) -> np.ndarray:
    return np.empty(size, np.uint8 if classes <= 255 else np.uint16)


def _rest(part: Scores, top: int, bottom: int, right: int) -> Scores | None:
    """What is still needed of a part, where the pixels above `bottom` and left of `right` have their labels."""
    rest = part.window(top if part.right > right else bottom, part.left if part.bottom > bottom else right,
                       part.bottom, part.right)
    if rest is not None and rest.values.size < part.values.size:
        rest.values = rest.values.copy()  # the part's own array is then free
    return rest


def _blocks(parts: Sequence[Scores], top: int, left: int, bottom: int, right: int
            ) -> Iterator[tuple[np.ndarray | int, tuple[slice, slice]]]:
    """Labels of the pixels of a rectangle, with their place, a small block at a time."""
    for y in range(top, bottom, BLOCK):
        for x in range(left, right, BLOCK):
            end_y, end_x = min(y + BLOCK, bottom), min(x + BLOCK, right)
            windows = [window for part in parts if (window := part.window(y, x, end_y, end_x)) is not None]
            classes = _possible(windows)
            place = slice(y, end_y), slice(x, end_x)
            if len(classes) == 1:
                yield classes[0], place
                continue
            # the mean's highest class is that of the sum: all classes of a pixel are in the same number of tiles
            total = np.zeros((end_y - y, end_x - x, len(classes)), np.float32)
            for window in windows:
                total[window.top - y:window.bottom - y, window.left - x:window.right - x] += window.upsampled(classes)
            yield classes[total.argmax(axis=-1)], place


def _possible(windows: list[Scores]) -> np.ndarray:
    """Classes that can be a pixel's best, ascending.

    Upsampled scores lie between the lowest and the highest that they are made of. A class whose highest is below the
    lowest of one other class, in all windows, is never the best; of 150 classes few are left.
    """
    lowest = np.stack([window.values.min(axis=(0, 1)) for window in windows])
    highest = np.stack([window.values.max(axis=(0, 1)) for window in windows])
    best = lowest.sum(axis=0).argmax()
    return np.flatnonzero((highest >= lowest[:, best:best + 1]).any(axis=0))
