"""Checks of one COCO segmentation against its image and box, without rasterising it."""
from collections.abc import Iterator
from operator import mul
from reprlib import repr as short_repr

import numpy as np
from pycocotools import mask as coco_mask

from ..json_values import is_integer, is_number

SLACK = 1.0  # pixels: COCO's own polygons and boxes may lie this far outside
MISMATCH = 0.1  # of a box side, and at least 3 pixels: how far mask and box may differ
AREA_MISMATCH = 0.2  # of the larger area, and at least 10 pixels

Problem = tuple[str, object]  # (code, value)


def check_mask(annotation: dict, width: int, height: int) -> Iterator[Problem]:
    """Problems of the segmentation itself, then of its extent and area against the annotation's."""
    segmentation = annotation['segmentation']
    if isinstance(segmentation, list):
        problem, extent, area = _polygons(segmentation)
    else:
        problem, extent, area = _run_lengths(segmentation, width, height)
    if problem is not None:
        yield problem
        return
    left, top, right, bottom = extent
    if left < -SLACK or top < -SLACK or right > width + SLACK or bottom > height + SLACK:
        yield 'mask-outside', f'{_numbers(extent)} in an image of {width}x{height}'
    box = annotation['bbox']
    corners = box[0], box[1], box[0] + box[2], box[1] + box[3]
    gaps = [abs(a - b) for a, b in zip(extent, corners, strict=True)]
    if max(gaps[0], gaps[2]) > max(3, MISMATCH * box[2]) or max(gaps[1], gaps[3]) > max(3, MISMATCH * box[3]):
        yield 'mask-box-mismatch', f'mask {_numbers(extent)}, box {_numbers(corners)}'
    yield from check_area(annotation, area)


def check_area(annotation: dict, area: float) -> Iterator[Problem]:
    """Whether an annotation's area is about `area`."""
    given = annotation.get('area')
    if given is None:
        return
    if not is_number(given) or abs(given - area) > max(10, AREA_MISMATCH * max(given, area)):
        yield 'area-mismatch', f'{short_repr(given)}, expected about {area:.0f}'


def run_length_counts(segmentation: dict) -> np.ndarray:
    """Run lengths of an RLE, compressed as in COCO or plain, as int64.

    Raises:
        ValueError: they are not of either form.
    """
    counts = segmentation['counts']
    if isinstance(counts, list):
        if not all(is_integer(count) and 0 <= count < 2**31 for count in counts):
            raise ValueError('counts are no run lengths')
        return np.array(counts, np.int64)
    codes = np.frombuffer(counts.encode('ascii') if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    if codes.size == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError('counts are no compressed run lengths')
    # five bits a character, the lowest first; 32 says that more follow, 16 in the last that the number is negative
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if places.max() > 11:
        raise ValueError('counts have a number that is too large')
    numbers = np.add.reduceat((codes & 31) << (5 * places), starts)
    numbers -= np.where(codes[ends] & 16, 1 << (5 * (places[ends] + 1)), 0)
    for first in (1, 2):  # from the fourth on, a number is the difference to the one before the last
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _polygons(polygons: list) -> tuple[Problem | None, tuple, float]:
    """In plain Python, which is several times as fast as numpy for the few numbers of a polygon."""
    area, all_x, all_y = 0.0, [], []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6:
            return ('polygon-short', short_repr(polygon)), (), 0
        if len(polygon) % 2:
            return ('polygon-odd', f'{len(polygon)} coordinates'), (), 0
        if not all(map(is_number, polygon)):
            return ('polygon-not-finite', short_repr(next(value for value in polygon if not is_number(value)))), (), 0
        x, y = polygon[::2], polygon[1::2]
        crossed = sum(map(mul, x, y[1:] + y[:1])) - sum(map(mul, y, x[1:] + x[:1]))
        area += abs(crossed) / 2  # the shoelace formula
        all_x += x
        all_y += y
    if area == 0:
        return ('mask-empty', 'polygons without area' if polygons else 'no polygon'), (), 0
    return None, (min(all_x), min(all_y), max(all_x), max(all_y)), area


def _run_lengths(segmentation, width: int, height: int) -> tuple[Problem | None, tuple, float]:
    try:
        size = tuple(segmentation['size'])
        counts = run_length_counts(segmentation)
    except (KeyError, TypeError, ValueError, UnicodeEncodeError) as error:
        return ('rle-broken', str(error)), (), 0
    if size != (height, width):
        return ('rle-size', f'{list(size)}, expected [{height}, {width}]'), (), 0
    if counts.min(initial=0) < 0 or counts.sum() != width * height:
        return ('rle-broken', f'run lengths add up to {counts.sum()}, expected {width * height}'), (), 0
    area = int(counts[1::2].sum())
    if area == 0:
        return ('mask-empty', 'no pixel'), (), 0
    compressed = coco_mask.frPyObjects({'size': list(size), 'counts': counts.tolist()}, height, width)
    x, y, w, h = coco_mask.toBbox(compressed).tolist()
    return None, (x, y, x + w, y + h), area


def _numbers(values) -> str:
    return '[' + ', '.join(f'{value:.1f}' for value in values) + ']'
