"""Where the tiles of a large image lie, and the objects of all tiles as objects of the image. Needs no torch."""
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from pycocotools import mask as coco_mask

from ..errors import UserError
from ..utils.run_lengths import EncodedMasks, encode_crop, encode_masks
from ..utils.windows import window_starts
from .results import Detections

NETWORK_STRIDE = 32  # of the last stage of a ConvNeXt
SAME_OBJECT = 0.5  # IoU from which two detections of one class are one object, as in the recipes' NMS
AT_BORDER = 0.02  # of the tile: a box that ends so near to a border may be cut by it

Rectangle = tuple[int, int, int, int]  # x1 y1 x2 y2 in pixels


@dataclass(frozen=True)
class Tiling:
    """How images that are larger than one tile are cut.

    Args:
        tile: side of the square tiles in pixels of the image.
        overlap: of neighbouring tiles, as a part of their side, 0 to 0.9.

    Raises:
        UserError: a tile that the network cannot take, or an overlap out of range.
    """
    tile: int
    overlap: float = 0.2

    def __post_init__(self):
        if not isinstance(self.tile, int) or self.tile < NETWORK_STRIDE:
            raise UserError(f'tile {self.tile}: expected a whole number of pixels, at least the network\'s stride of '
                            f'{NETWORK_STRIDE}, as in tile 1024')
        if not 0 <= self.overlap <= 0.9:
            raise UserError(f'overlap {self.overlap:g} of tiles: expected a part of the tile from 0 to 0.9, as in '
                            'overlap 0.2')

    def cuts(self, height: int, width: int) -> bool:
        """Whether an image of that size is larger than one tile."""
        return max(height, width) > self.tile

    def starts(self, length: int) -> list[int]:
        """First pixels of the tiles along a side; the last tile ends with the image."""
        return window_starts(length, self.tile, self.tile - round(self.tile * self.overlap))

    def tiles(self, height: int, width: int) -> list[Rectangle]:
        """All tiles of an image, row by row."""
        return [(x, y, min(x + self.tile, width), min(y + self.tile, height))
                for y, x in product(self.starts(height), self.starts(width))]


def predict_tiles(image: np.ndarray, tiles: Sequence[Rectangle], predict: Callable, together: int
                  ) -> Iterator[tuple[Rectangle, object]]:
    """Every tile with what ``predict`` returns for it.

    Args:
        image: (H, W, 3).
        predict: list of parts of the image, all of one size, to list of results.
        together: tiles that `predict` gets in one call.
    """
    for start in range(0, len(tiles), together):
        some = tiles[start:start + together]
        yield from zip(some, predict([image[y1:y2, x1:x2] for x1, y1, x2, y2 in some]), strict=True)


def detect_tiled(image: np.ndarray, tiling: Tiling, detect: Callable, classes: Sequence[str], together: int = 1
                 ) -> Detections:
    """Detections of an image from those of its tiles; see `merge`.

    Args:
        image: (H, W, 3), larger than one tile.
        detect: list of tiles to list of results with ``labels`` (N), ``boxes`` (N, 4; x1 y1 x2 y2 in the tile),
            ``scores`` (N) and ``masks`` (bool, N x h x w of the tile, or None).
        classes: names, indexed by the labels.
        together: tiles that go through `detect` in one call.

    Returns:
        Detections with `EncodedMasks`, best first.
    """
    size = image.shape[:2]
    tiles = tiling.tiles(*size)
    labels, boxes, scores, owners, rles = [], [], [], [], []
    for index, (tile, found) in enumerate(predict_tiles(image, tiles, detect, together)):
        labels.append(np.asarray(found.labels, np.int64))
        boxes.append(np.asarray(found.boxes, np.float32).reshape(-1, 4) + np.array(tile[:2] * 2, np.float32))
        scores.append(np.asarray(found.scores, np.float32))
        owners.append(np.full(len(found.labels), index))
        rles = None if found.masks is None else [*(rles or []), encode_masks(found.masks, tile[1], tile[0], size)]
    pieces = Pieces(*map(np.concatenate, (labels, boxes, scores, owners)),
                    None if rles is None else [rle for part in rles for rle in part])
    merged = merge(pieces, tiles, size, AT_BORDER * tiling.tile)
    masks = None if merged.rles is None else EncodedMasks(merged.rles, size)
    return Detections(merged.labels, merged.boxes, masks, merged.scores, classes, size)


@dataclass
class Pieces:
    """Detections of all tiles, in pixels of the image.

    Args:
        labels: (N,).
        boxes: (N, 4).
        scores: (N,).
        owners: index of the tile that each was found in, (N,).
        rles: compressed run lengths of the masks, or None.
    """
    labels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    owners: np.ndarray
    rles: list[dict] | None

    def __getitem__(self, keep: np.ndarray) -> 'Pieces':
        rles = None if self.rles is None else [self.rles[index] for index in np.arange(len(self.labels))[keep]]
        return Pieces(self.labels[keep], self.boxes[keep], self.scores[keep], self.owners[keep], rles)


def merge(pieces: Pieces, tiles: Sequence[Rectangle], size: tuple[int, int], margin: float) -> Pieces:
    """Every object once, best first.

    A box that ends at a border between tiles may be part of an object. In turn:

    1. Such a part is left out where another tile sees all of it and cuts it at fewer borders: that tile has more of
       the object, and what it says of it counts.
    2. Detections of one class in two tiles are the same object if they agree on the pixels that both tiles see: IoU of
       at least 0.5, of their masks there if one of them is cut and there are masks, else of their boxes there. Each
       has one partner at most in another tile, the one of the highest IoU.
    3. Of the same object in several tiles, none of them cut, the one of the highest score is kept. If it is cut, its
       parts are united: hull of the boxes, union of the masks, highest score.

    Args:
        pieces: what was found in the tiles.
        tiles: their places.
        size: (height, width) of the image.
        margin: distance in pixels from a border at which a box counts as cut by it.
    """
    cut = np.zeros((len(pieces.labels), 4), bool)
    for index, tile in enumerate(tiles):
        own = pieces.owners == index
        cut[own] = cut_sides(pieces.boxes[own], tile, size, margin)
    keep = ~seen_better(pieces, cut, tiles, size, margin)
    pieces, cut = pieces[keep], cut[keep].any(axis=1)
    parent = np.arange(len(pieces.labels))
    for first, second in same_objects(pieces, cut, tiles, size):
        roots = _root(parent, first), _root(parent, second)
        parent[max(roots)] = min(roots)
    groups: dict[int, list[int]] = {}
    for index in range(len(parent)):
        groups.setdefault(_root(parent, index), []).append(index)
    return _united(pieces, cut, list(groups.values()))


def cut_sides(boxes: np.ndarray, tile: Rectangle, size: tuple[int, int], margin: float) -> np.ndarray:
    """Which borders of a tile cut boxes (N, 4): bool (N, 4), left top right bottom; borders of the image cut none."""
    height, width = size
    x1, y1, x2, y2 = tile
    inner = np.array([x1 > 0, y1 > 0, x2 < width, y2 < height])
    inside = np.array([1, 1, -1, -1]) * (boxes - np.array(tile))  # distance from each border
    return inner & (inside <= margin)


def seen_better(pieces: Pieces, cut: np.ndarray, tiles: Sequence[Rectangle], size: tuple[int, int], margin: float
                ) -> np.ndarray:
    """Pieces that lie in another tile, too, which cuts them at fewer sides, and at none that their own does not."""
    better = np.zeros(len(pieces.labels), bool)
    candidates = np.flatnonzero(cut.any(axis=1))
    boxes, own = pieces.boxes[candidates], cut[candidates]
    for tile in tiles:
        inside = (boxes[:, :2] >= tile[:2]).all(axis=1) & (boxes[:, 2:] <= tile[2:]).all(axis=1)
        there = cut_sides(boxes, tile, size, margin)
        better[candidates] |= inside & (there <= own).all(axis=1) & (there < own).any(axis=1)
    return better


def same_objects(pieces: Pieces, cut: np.ndarray, tiles: Sequence[Rectangle], size: tuple[int, int]
                 ) -> Iterator[tuple[int, int]]:
    """Pairs of pieces of different tiles that are one object."""
    used = np.unique(pieces.owners)
    places = np.array(tiles).reshape(-1, 4)[used]
    of_tile = [np.flatnonzero(pieces.owners == index) for index in used]
    for one in range(len(used)):
        regions = intersection(places[one + 1:], places[one])
        for other in np.flatnonzero(area(regions)):
            shared = regions[other]
            rows, columns = (indices[area(intersection(pieces.boxes[indices], shared)) > 0]
                             for indices in (of_tile[one], of_tile[one + 1 + other]))
            yield from _partners(pieces, cut, rows, columns, shared, size)


def _partners(pieces: Pieces, cut: np.ndarray, rows: np.ndarray, columns: np.ndarray, shared: np.ndarray,
              size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Pairs of `rows` and `columns`, each in one pair at most, that agree on the pixels that both tiles see."""
    first, second = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing='ij'))
    same_class = pieces.labels[first] == pieces.labels[second]
    first, second = first[same_class], second[same_class]
    boxes = intersection(pieces.boxes, shared)
    overlaps = iou(boxes[first], boxes[second])
    first, second, overlaps = first[overlaps > 0], second[overlaps > 0], overlaps[overlaps > 0]
    by_mask = np.flatnonzero(cut[first] | cut[second]) if pieces.rles is not None else []
    if len(by_mask):
        x1, y1, x2, y2 = shared.tolist()
        window = encode_crop(np.ones((y2 - y1, x2 - x1), bool), y1, x1, size)
        visible = {index: coco_mask.merge([pieces.rles[index], window], intersect=True)
                   for index in {*first[by_mask], *second[by_mask]}}
        for place in by_mask:
            overlaps[place] = coco_mask.iou([visible[first[place]]], [visible[second[place]]], [0])[0, 0]
    taken = set()
    for place in np.argsort(-overlaps, kind='stable'):
        pair = first[place], second[place]
        if overlaps[place] >= SAME_OBJECT and not taken & set(pair):
            taken |= set(pair)
            yield pair


def _united(pieces: Pieces, cut: np.ndarray, groups: Sequence[Sequence[int]]) -> Pieces:
    """One detection of each group of pieces, best first."""
    best = np.array([max(group, key=lambda index: pieces.scores[index]) for group in groups], int)
    objects = pieces[best]
    for index, group in enumerate(groups):
        if len(group) > 1 and cut[group].any():
            boxes = pieces.boxes[group]
            objects.boxes[index] = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
            if objects.rles is not None:
                objects.rles[index] = coco_mask.merge([pieces.rles[member] for member in group])
    return objects[np.argsort(-objects.scores, kind='stable')]


def _root(parent: np.ndarray, index: int) -> int:
    while parent[index] != index:
        index = parent[index]
    return index


def intersection(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What boxes (..., 4) share with a box (4,); of no area where that is nothing."""
    return np.concatenate([np.maximum(boxes[..., :2], other[:2]), np.minimum(boxes[..., 2:], other[2:])], axis=-1)


def area(boxes: np.ndarray) -> np.ndarray:
    """Of boxes (..., 4), 0 where they are turned inside out."""
    return np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(axis=-1)


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of two lists of boxes (N, 4), pair by pair."""
    shared = area(np.concatenate([np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])], 1))
    return shared / np.maximum(area(boxes) + area(others) - shared, 1e-9)
