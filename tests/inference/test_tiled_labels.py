"""Label maps of tiles against scores that are upsampled by torch, added up over the whole image and compared."""
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from convnext_dense.inference.tiled_labels import Scores, bilinear, label_map, segment_tiled, upsampling
from convnext_dense.inference.tiling import Tiling


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(('length', 'new_length'), [(1, 7), (8, 32), (13, 50), (50, 13), (9, 9), (2, 1), (256, 1024)])
def test_bilinear_is_torchs(length, new_length, align_corners):
    values = torch.randn(1, 1, length, 3).double()  # in single precision torch rounds the places, too
    expected = F.interpolate(values, size=(new_length, 3), mode='bilinear', align_corners=align_corners)[0, 0]
    matrix = bilinear(length, new_length, align_corners)
    np.testing.assert_allclose(matrix @ values[0, 0].numpy(), expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    assert matrix.dtype == np.float32 and (matrix >= 0).all()


class Network:
    """Gives every tile scores at a fraction of its size, smooth or noisy; keeps them for the reference."""

    def __init__(self, classes: int, stride: int, smooth: bool):
        self.classes, self.stride, self.smooth, self.given = classes, stride, smooth, []
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, tiles):
        parts = []
        for tile in tiles:
            high, wide = (-(-side // self.stride) for side in tile.shape[:2])
            small = torch.randn(1, self.classes, *((2, 2) if self.smooth else (high, wide)), generator=self.generator)
            scores = F.interpolate(small, size=(high, wide), mode='bilinear')[0]
            self.given.append(scores)
            parts.append([Scores(scores.permute(1, 2, 0).numpy(), bilinear(high, tile.shape[0]),
                                 bilinear(wide, tile.shape[1]))])
        return parts

    def mean(self, tiling: Tiling, size: tuple[int, int]) -> torch.Tensor:
        total, count = torch.zeros(self.classes, *size), torch.zeros(size)
        for (x1, y1, x2, y2), scores in zip(tiling.tiles(*size), self.given, strict=True):
            total[:, y1:y2, x1:x2] += F.interpolate(scores[None], size=(y2 - y1, x2 - x1), mode='bilinear')[0]
            count[y1:y2, x1:x2] += 1
        return total / count


@pytest.mark.parametrize('smooth', [True, False])
@pytest.mark.parametrize(('size', 'tile', 'stride', 'overlap'), [
    ((150, 333), 96, 4, 0.2), ((150, 333), 96, 4, 0.5), ((150, 333), 96, 4, 0.0), ((40, 200), 64, 4, 0.3),
    ((97, 96), 96, 8, 0.2), ((70, 100), 48, 8, 0.9)])
def test_labels_are_the_best_mean_scores(size, tile, stride, smooth, overlap):
    network, tiling = Network(21, stride, smooth), Tiling(tile, overlap)
    labels = segment_tiled(np.zeros((*size, 3), np.uint8), tiling, network, together=2)
    mean = network.mean(tiling, size)
    best = mean.topk(2, dim=0)
    differ = torch.from_numpy(labels).long() != best.indices[0]
    assert labels.dtype == np.uint8 and len(np.unique(labels)) > 2
    assert (best.values[0] - best.values[1])[differ].max().item() < 1e-5 if differ.any() else True
    assert differ.float().mean() < 1e-3


def test_scores_at_the_size_of_the_tile_and_parts_of_a_tile():
    """Identity matrices; and two halves of a tile, each given alone, are the tile."""
    size, tiling, given = (100, 130), Tiling(64, 0.3), []
    generator = np.random.default_rng(0)

    def full(tiles):
        given.extend(generator.standard_normal((*tile.shape[:2], 5), np.float32) for tile in tiles)
        return [[Scores(scores, np.eye(64, dtype=np.float32), np.eye(64, dtype=np.float32))]
                for scores in given[-len(tiles):]]

    image = np.zeros((*size, 3), np.uint8)
    labels = segment_tiled(image, tiling, full)
    total = np.zeros((*size, 5))
    for (x1, y1, x2, y2), scores in zip(tiling.tiles(*size), given, strict=True):
        total[y1:y2, x1:x2] += scores
    np.testing.assert_array_equal(labels, total.argmax(-1))
    again, eye = iter(given), np.eye(64, dtype=np.float32)

    def halves(tiles):
        scores = [next(again) for _ in tiles]
        return [[Scores(one[:40], eye[:40, :40], eye), Scores(one[40:], eye[:24, :24], eye, top=40)] for one in scores]

    np.testing.assert_array_equal(segment_tiled(image, tiling, halves), labels)


@pytest.mark.parametrize(('starts', 'original'), [(((0,), (0,)), (90, 122)), (((0, 32), (0, 40, 64)), (90, 122)),
                                                  (((0, 32), (0, 40, 64)), (100, 75))])
def test_windows_of_one_image(starts, original):
    """Sliding windows over an image of 96 x 128 with padding: upsampled, averaged, cropped and resized by torch."""
    size, padding, classes = (96, 128), 6, 12
    crop = tuple(64 if len(along) > 1 else side for along, side in zip(starts, size, strict=True))
    total, count, windows = torch.zeros(classes, *size), torch.zeros(size), []
    generator = torch.Generator().manual_seed(0)
    for y in starts[0]:
        for x in starts[1]:
            scores = torch.randn(classes, crop[0] // 4, crop[1] // 4, generator=generator)
            place = slice(y, y + crop[0]), slice(x, x + crop[1])
            total[(slice(None), *place)] += F.interpolate(scores[None], size=crop, mode='bilinear')[0]
            count[place] += 1
            windows.append((place, scores.permute(1, 2, 0).numpy()))
    mean = (total / count)[:, :size[0] - padding, :size[1] - padding]
    best = F.interpolate(mean[None], size=original, mode='bilinear')[0].topk(2, dim=0)
    places = [place for place, _ in windows]
    parts = [upsampling(scores, place, places, size, ((0, padding), (0, padding)), original)
             for place, scores in windows]
    differ = torch.from_numpy(label_map(parts, original)).long() != best.indices[0]
    assert differ.float().mean() < 1e-3 and (best.values[0] - best.values[1])[differ].sum() < 1e-5
    assert len(parts) == 1 or max(len(part.rows) for part in parts) < original[0]  # nothing beyond the window


def test_more_than_255_classes_are_16_bit():
    network = Network(300, 8, False)
    labels = segment_tiled(np.zeros((70, 130, 3), np.uint8), Tiling(64), network)
    assert labels.dtype == np.uint16 and labels.max() > 255


MEMORY = '''
import json, resource, sys, time
import numpy as np
from convnext_dense.inference.tiled_labels import Scores, bilinear, segment_tiled
from convnext_dense.inference.tiling import Tiling

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before, side, classes = peak(), 20_000, 150
image = np.full((side, side, 3), 7, np.uint8)
random, up = np.random.default_rng(0), bilinear(256, 1024)
coarse = bilinear(3, 256)

def smooth():
    """Scores at a quarter of the tile's size, as networks give them: 39 MB."""
    small = random.standard_normal((3, 3, classes), np.float32)
    return coarse @ (coarse @ small.reshape(3, -1)).reshape(256, 3, classes)

some = [smooth() for _ in range(4)]

def network(tiles):
    return [[Scores(some[random.integers(4)].copy(), up, up)] for _ in tiles]

start = time.time()
labels = segment_tiled(image, Tiling(1024, 0.2), network)
print(json.dumps(dict(peak=peak(), before=before, seconds=time.time() - start, shape=labels.shape,
                      tiles=len(Tiling(1024).tiles(side, side)), used=len(np.unique(labels[::50, ::50])))))
'''


@pytest.mark.slow
@pytest.mark.long
def test_memory_of_400_megapixels_and_150_classes():
    finished = subprocess.run([sys.executable, '-c', MEMORY], capture_output=True, text=True, check=True, timeout=1500)
    found = json.loads(finished.stdout.splitlines()[-1])
    print(f'20,000 x 20,000 pixels, 150 classes, {found["tiles"]} tiles: peak {found["peak"] / 2 ** 30:.2f} GiB, of '
          f'which {found["before"] / 2 ** 30:.2f} before and 1.49 are image and labels; {found["seconds"]:.0f} s')
    assert found['peak'] < 4 * 2 ** 30 and found['shape'] == [20_000, 20_000] and found['used'] > 20
