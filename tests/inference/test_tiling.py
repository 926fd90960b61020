"""Objects of tiles as objects of the image: a detector that reads its objects off the pixels, so that rules are tested
and not training."""
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmseg.models import EncoderDecoder
from pycocotools import mask as coco_mask

from convnext_dense.errors import UserError
from convnext_dense.inference.tiling import Tiling, detect_tiled
from convnext_dense.utils.run_lengths import EncodedMasks

CLASSES = ('one', 'two', 'three')


def draw_world(seed: int, size: tuple[int, int], objects: int, shortest: int, longest: int, upright: bool = False
               ) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) whose pixels are the number of their object, from 1, and the label of every number.

    Objects are rotated rectangles and ellipses (rectangles only, if upright) that do not overlap.
    """
    random, numbers = np.random.default_rng(seed), np.zeros(size, np.uint8)
    for _ in range(200):
        if numbers.max() == objects:
            break
        shape = np.zeros(size, np.uint8)
        y, x = (int(random.integers(0, side)) for side in size)
        sides = random.integers(shortest, longest + 1, 2).tolist()
        if random.random() < 0.5:
            sides[0] = max(4, sides[0] // 5)
        if upright:
            cv2.rectangle(shape, (x, y), (x + sides[0], y + sides[1]), 1, -1)
        elif random.random() < 0.5:
            corners = cv2.boxPoints(((x, y), sides, float(random.uniform(0, 180))))
            cv2.fillPoly(shape, [np.rint(corners).astype(np.int32)], 1)
        else:
            cv2.ellipse(shape, (x, y), [side // 2 for side in sides], float(random.uniform(0, 180)), 0, 360, 1, -1)
        if shape.any() and not numbers[shape > 0].any():
            numbers[shape > 0] = numbers.max() + 1
    return np.repeat(numbers[..., None], 3, axis=2), random.integers(0, len(CLASSES), 256)


def box_of(mask: np.ndarray) -> list[int]:
    x, y, wide, high = cv2.boundingRect(mask.astype(np.uint8))
    return [x, y, x + wide, y + high]


class Reader:
    """Detects every object that a tile shows a pixel of, with a random score; counts tiles.

    Args:
        labels: of every object number.
        masks: whether it returns masks.
        noise: pixels by which boxes are wrong; objects are then seen from 15 % of a tile's area or of themselves on,
            and masks lose some of their outline.
    """

    def __init__(self, labels, masks=True, noise=0, whole=None):
        self.labels, self.masks, self.noise, self.whole = labels, masks, noise, whole
        self.random, self.calls = np.random.default_rng(7), []

    def __call__(self, tiles):
        self.calls.append([tile.shape for tile in tiles])
        return [self.read(tile[..., 0]) for tile in tiles]

    def read(self, tile):
        numbers = [number for number in np.unique(tile) if number]
        if self.noise:
            numbers = [number for number in numbers if (tile == number).sum() > 0.15 * self.whole[number]]
        masks = [tile == number for number in numbers]
        boxes = np.array([box_of(mask) for mask in masks], np.float32).reshape(-1, 4)
        if self.noise:
            high, wide = tile.shape
            boxes = boxes + self.random.uniform(-self.noise, self.noise, boxes.shape)
            boxes = np.clip(boxes, 0, [wide, high, wide, high])
            masks = [mask & ~((mask != (cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0))
                              & (self.random.random(mask.shape) < 0.5)) for mask in masks]
        return SimpleNamespace(labels=self.labels[numbers], boxes=boxes, scores=self.random.random(len(numbers)),
                               masks=np.array(masks).reshape(-1, *tile.shape) if self.masks else None)


def known(world: np.ndarray) -> dict[int, np.ndarray]:
    """Number -> mask of every object."""
    return {number: world[..., 0] == number for number in np.unique(world) if number}


@pytest.mark.parametrize(('longest', 'overlap'), [(12, 0.2), (60, 0.2), (200, 0.2), (60, 0.1), (200, 0.1), (60, 0.5),
                                                  (100, 0.75)])
def test_every_object_is_found_once_with_its_whole_mask(longest, overlap):
    found_cut = 0
    for seed in range(3):
        world, labels = draw_world(seed, (230, 310), 30, 4, longest)
        tiling = Tiling(96, overlap)
        found = detect_tiled(world, tiling, Reader(labels), CLASSES, together=3)
        objects = known(world)
        assert len(found.labels) == len(objects)
        assert isinstance(found.masks, EncodedMasks) and found.size == (230, 310)
        expected = {coco_mask.encode(np.asfortranarray(mask, np.uint8))['counts']: (labels[number], box_of(mask))
                    for number, mask in objects.items()}
        for rle, label, box in zip(found.masks.rles, found.labels, found.boxes, strict=True):
            assert expected.pop(rle['counts']) == (label, box.tolist())
        assert (np.diff(found.scores) <= 0).all()
        seams = [x for x in tiling.starts(310) if x]
        found_cut += sum(mask[:, x - 1:x + 1].any(axis=0).all() for mask in objects.values() for x in seams)
    assert found_cut > 10


def test_without_a_merging_rule_objects_on_seams_are_found_more_than_once():
    """The test above can fail: plain detections of all tiles are more than the objects, and so they are after NMS."""
    world, labels = draw_world(0, (230, 310), 40, 4, 60)
    boxes, classes = [], []
    for x1, y1, x2, y2 in Tiling(96).tiles(230, 310):
        found = Reader(labels)([world[y1:y2, x1:x2]])[0]
        boxes += (found.boxes + [x1, y1, x1, y1]).tolist()
        classes += found.labels.tolist()
    from torch import tensor
    from torchvision.ops import batched_nms
    kept = batched_nms(tensor(boxes), tensor([1.0] * len(boxes)), tensor(classes), 0.5)
    assert len(boxes) > len(kept) > 1.2 * len(known(world))


@pytest.mark.parametrize('overlap', [0.2, 0.4])
def test_boxes_without_masks(overlap):
    for seed in range(3):
        world, labels = draw_world(seed, (230, 310), 40, 4, 200, upright=True)
        found = detect_tiled(world, Tiling(96, overlap), Reader(labels, masks=False), CLASSES)
        assert found.masks is None
        expected = sorted((labels[number], *box_of(mask)) for number, mask in known(world).items())
        assert sorted((label, *box) for label, box in zip(found.labels, found.boxes.tolist(), strict=True)) == expected


@pytest.mark.parametrize('longest', [30, 150])
def test_inaccurate_boxes_masks_and_missed_slivers(longest):
    """Objects are still found once each: at least 97 of 100, and at most 3 of 100 detections are repetitions."""
    objects = hits = repeated = 0
    for seed in range(4):
        world, labels = draw_world(seed, (460, 620), 40, 12, longest)
        whole = np.bincount(world[..., 0].ravel(), minlength=256)
        found = detect_tiled(world, Tiling(192, 0.2), Reader(labels, noise=2, whole=whole), CLASSES)
        claimed = []
        for label, rle in zip(found.labels, found.masks.rles, strict=True):
            mask = coco_mask.decode(rle).astype(bool)
            number = np.bincount(world[..., 0][mask], minlength=256)[1:].argmax() + 1
            union = (mask | (world[..., 0] == number)).sum()
            claimed.append(number if mask[world[..., 0] == number].sum() > 0.5 * union else -number)
            assert label == labels[number]
        objects += len(known(world))
        hits += len({number for number in claimed if number > 0})
        repeated += len(claimed) - len({number for number in claimed if number > 0})
    print(f'objects up to {longest} pixels: {hits} of {objects} found, {repeated} repetitions')
    assert hits >= 0.97 * objects and repeated <= 0.03 * objects


def test_what_another_tile_sees_whole_counts_not_the_part():
    """A part at a border has another class and the highest score: the tile that sees all of the object decides."""
    world, labels = draw_world(0, (96, 160), 0, 4, 5)
    world[30:50, 70:110] = 1  # the first of two tiles of 96 pixels sees 26 columns of it, the second all

    class Mistaken(Reader):
        def read(self, tile):
            found = super().read(tile)
            cut = found.boxes[:, 2] == 96
            found.labels = np.where(cut, 2, 0)
            found.scores = np.where(cut, 0.9, 0.5)
            return found

    found = detect_tiled(world, Tiling(96, 0.33), Mistaken(labels), CLASSES)
    assert found.labels.tolist() == [0] and found.boxes.tolist() == [[70, 30, 110, 50]]
    assert found.scores.tolist() == [0.5] and found.names == ['one']


def test_neighbours_of_one_class_stay_apart():
    """Two long objects of one class side by side over a seam, parallel and diagonal, are two."""
    world = np.zeros((200, 200, 3), np.uint8)
    cv2.line(world, (10, 10), (180, 180), (1, 1, 1), 7)
    cv2.line(world, (30, 10), (190, 170), (2, 2, 2), 7)
    cv2.line(world, (10, 60), (120, 190), (3, 3, 3), 3)
    found = detect_tiled(world, Tiling(96, 0.25), Reader(np.zeros(256, int)), CLASSES)
    assert sorted(found.masks.areas) == sorted(mask.sum() for mask in known(world).values())


def test_nothing_found():
    world, labels = np.zeros((100, 300, 3), np.uint8), np.zeros(256, int)
    found = detect_tiled(world, Tiling(64), Reader(labels), CLASSES)
    assert len(found.labels) == 0 and found.boxes.shape == (0, 4) and len(found.masks) == 0
    assert detect_tiled(world, Tiling(64), Reader(labels, masks=False), CLASSES).masks is None


@pytest.mark.parametrize('size', [(64, 65), (200, 50), (333, 444), (64, 200), (65, 64)])
@pytest.mark.parametrize('overlap', [0.0, 0.2, 0.6, 0.9])
def test_tiles_are_mmsegs_windows_and_batches_have_one_shape(size, overlap):
    tiling, windows = Tiling(64, overlap), []
    stride = 64 - round(64 * overlap)

    class Model:  # mmseg's own loop, which notes the windows that it asks for
        out_channels, align_corners = 1, False
        test_cfg = SimpleNamespace(stride=(stride, stride), crop_size=(64, 64))

        def encode_decode(self, crop, _):
            windows.append(crop)
            return crop[:, :1]

    import torch
    image = torch.arange(size[0] * size[1]).reshape(1, 1, *size).float()
    EncoderDecoder.slide_inference(Model(), image, [{}])
    tiles = tiling.tiles(*size)
    assert [tuple(window[0, 0, [0, -1], [0, -1]].int().tolist()) for window in windows] == \
        [(y1 * size[1] + x1, (y2 - 1) * size[1] + x2 - 1) for x1, y1, x2, y2 in tiles]
    reader = Reader(np.zeros(256, int))
    detect_tiled(np.zeros((*size, 3), np.uint8), tiling, reader, CLASSES, together=4)
    assert [len(call) for call in reader.calls[:-1]] == [4] * (len(reader.calls) - 1)
    assert len({shape for call in reader.calls for shape in call}) == 1


@pytest.mark.parametrize(('settings', 'message'), [
    ((16,), r'tile 16: expected .* at least the network\'s stride of 32'), ((0,), 'tile 0'), ((512.5,), 'tile 512.5'),
    ((512, 0.95), 'overlap 0.95 of tiles: expected a part of the tile from 0 to 0.9'), ((512, -0.1), 'overlap -0.1'),
    ((512, float('nan')), 'overlap nan')])
def test_tiles_that_cannot_work(settings, message):
    with pytest.raises(UserError, match=message):
        Tiling(*settings)


def test_an_image_of_one_tile_is_not_cut():
    assert not Tiling(64).cuts(64, 64) and Tiling(64).cuts(64, 65) and Tiling(64).cuts(65, 10)
