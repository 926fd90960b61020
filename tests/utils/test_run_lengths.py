"""Run lengths of parts of masks against pycocotools on the whole masks."""
import tracemalloc

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from convnext_dense.utils.run_lengths import EncodedMasks, decode_counts, decode_crop, encode_crop, encode_masks


def random_parts(number: int):
    """(image size, top, left, part of a mask) of many kinds: noise, blobs, full, empty, as high as the image."""
    random = np.random.default_rng(0)
    for index in range(number):
        size = tuple(random.integers(1, 60, 2))
        top, left = (random.integers(0, side) for side in size)
        high, wide = (random.integers(1, side - first + 1) for side, first in zip(size, (top, left), strict=True))
        if index % 3 == 0:
            top, high = 0, size[0]
        part = random.random((high, wide))
        part = cv2.GaussianBlur(part, (0, 0), 3) if index % 2 else part
        yield size, top, left, part > (-1, np.median(part), 2, 0.1, 0.9)[index % 5]


def whole(size, top, left, part) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top:top + part.shape[0], left:left + part.shape[1]] = part
    return mask


def test_the_code_of_a_part_is_that_of_pycocotools_for_the_whole_mask():
    kinds = set()
    for size, top, left, part in random_parts(600):
        mask = whole(size, top, left, part)
        expected = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        assert encode_crop(part, top, left, size) == expected
        assert encode_masks(part[None], top, left, size) == [expected]
        kinds.add((mask.any(), mask.all(), len(part) == size[0], mask[0, 0], mask[-1, -1]))
    assert len(kinds) >= 8


def test_decoding_gives_the_pixels_back():
    for size, top, left, part in random_parts(300):
        mask = whole(size, top, left, part)
        rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        assert np.array_equal(decode_counts(rle['counts']).cumsum()[-1], mask.size)
        for code in (rle, {**rle, 'counts': rle['counts'].decode('ascii')}):
            crop = decode_crop(code)
            assert np.array_equal(whole(size, crop.top, crop.left, crop.pixels), mask)
            assert crop.pixels.shape == (0, 0) or (crop.pixels.any(0)[[0, -1]].all() and
                                                   crop.pixels.any(1)[[0, -1]].all())


def test_large_numbers_and_memory_of_a_huge_image():
    """A disc in 20,000 x 20,000 pixels, whose bitmap has 400 MB."""
    size, y, x = (20_000, 20_000), *np.mgrid[-200:200, -200:200]
    tracemalloc.start()
    try:
        rle = encode_crop(x ** 2 + y ** 2 < 150 ** 2, 19_500, 18_000, size)
        crop = decode_crop(rle)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f'peak {peak / 2 ** 20:.1f} MiB')
    assert peak < 32 * 2 ** 20
    assert coco_mask.area(rle) == crop.pixels.sum() == (x ** 2 + y ** 2 < 150 ** 2).sum()
    assert tuple(coco_mask.toBbox(rle)) == (crop.left, crop.top, *crop.pixels.shape[::-1]) == (18_051, 19_551, 299, 299)


@pytest.fixture(scope='module')
def dense() -> np.ndarray:
    noise = np.random.default_rng(1).random((7, 41, 53))
    return np.stack([cv2.GaussianBlur(mask, (0, 0), 3) > 0.5 for mask in noise])


def test_encoded_masks_are_a_sequence_of_masks(dense):
    masks = EncodedMasks([coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in dense], dense.shape[1:])
    assert masks.shape == dense.shape and len(masks) == 7
    assert np.array_equal(np.asarray(masks), dense) and np.array_equal(masks[-1], dense[-1])
    assert np.array_equal(masks.areas, dense.sum((1, 2)))
    for keep in (slice(1, 4), np.array([5, 0]), np.arange(7) % 2 == 0, np.zeros(7, bool)):
        assert np.array_equal(np.asarray(masks[keep]), dense[keep])
    for mask, expected in zip(masks, dense, strict=True):
        assert np.array_equal(mask, expected)
    assert len(EncodedMasks([], (3, 4)).areas) == 0
    many = EncodedMasks(masks.rles * 40, masks.size)
    assert np.array_equal(many.areas, np.tile(masks.areas, 40))


@pytest.mark.parametrize('factor', [1, 2, 3, 7, 50])
def test_reduced_masks_have_every_nth_pixel(dense, factor):
    masks = EncodedMasks(encode_masks(dense, 0, 0, dense.shape[1:]), dense.shape[1:])
    assert np.array_equal(np.asarray(masks.reduced(factor)), dense[:, ::factor, ::factor])
