"""A score for each predicted image, and the choice of the images that a report shows."""
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .confusion import MIN_IOU, MIN_SCORE, Agreement
from .overlaps import ImageOverlaps, match


class Surprise(NamedTuple):
    """Something unexpected in an image.

    Args:
        size: orders surprises of one kind, the largest first.
        text: the caption.
        which: the detection or the object, by its place in `ImageOverlaps`; of labels the true and predicted class.
    """
    size: float
    text: str
    which: int | tuple[int, int]


@dataclass
class ImageScore:
    """One image's result.

    Args:
        index: place among the predictions.
        quality: 0 to 1, F1 of detections or mIoU of labels.
        weight: the number of objects or of classes; orders images of equal quality, the larger first.
        summary: the result in words.
        surprises: by kind; only what occurs.
    """
    index: int
    quality: float
    weight: float
    summary: str
    surprises: dict[str, Surprise] = field(default_factory=dict)


FALSE_POSITIVE, LARGE_MISS = 'most confident false positives', 'largest missed objects'
CONFUSED_AREA = 'largest confused areas'


def detection_score(index: int, image: ImageOverlaps, names: Sequence[str]) -> ImageScore | None:
    """F1 of the detections with a score of at least 0.3, at IoU 0.5 and equal class; None where there is nothing.

    Detections in a crowd region of their class do not count.
    """
    kept = image.scores >= MIN_SCORE
    objects = match((image.iou * image.same_class())[kept], MIN_IOU)
    found = np.isin(np.arange(len(image.gt_labels)), objects)
    false = np.flatnonzero(kept)[(objects < 0) & ~image.in_crowd(MIN_IOU)[kept]]
    hits, misses = int(found.sum()), int((~found).sum())
    if hits + misses + len(false) == 0:
        return None
    f1 = 2 * hits / (2 * hits + misses + len(false))
    surprises = {}
    if len(false):
        score, name = image.scores[false[0]], names[image.labels[false[0]]]  # the most certain comes first
        surprises[FALSE_POSITIVE] = Surprise(float(score), f'{name} with score {score:.2f}', int(false[0]))
    if misses:
        largest = np.flatnonzero(~found)[image.gt_areas[~found].argmax()]
        area, name = image.gt_areas[largest], names[image.gt_labels[largest]]
        share = f'{100 * area:.0f}' if area >= 0.01 else f'{100 * area:.2g}'
        surprises[LARGE_MISS] = Surprise(float(area), f'{name}, {share} % of the image', int(largest))
    return ImageScore(index, f1, hits + misses, f'F1 {f1:.2f}: {hits} found, {misses} missed, {len(false)} false',
                      surprises)


def label_score(index: int, matrix: np.ndarray, names: Sequence[str]) -> ImageScore | None:
    """mIoU over the classes that are annotated or predicted in the image; None where every pixel is ignored.

    Args:
        index: place among the predictions.
        matrix: the image's label confusion, (K, K).
        names: of the classes.
    """
    quality = Agreement.mean(Agreement.of(matrix).iou)
    if quality is None:
        return None
    wrong = matrix * (1 - np.eye(len(matrix), dtype=int))
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    share = wrong[true, predicted] / matrix.sum()
    surprises = {}
    if share:
        surprises[CONFUSED_AREA] = Surprise(
            float(share), f'{names[true]} predicted as {names[predicted]}, {100 * share:.0f} %',
            (int(true), int(predicted)))
    right = np.trace(matrix) / matrix.sum()
    return ImageScore(index, quality, int((matrix.sum(axis=1) > 0).sum()),
                      f'mIoU {100 * quality:.1f}, {100 * right:.0f} % of the pixels right', surprises)


class Chosen(NamedTuple):
    """An image to show, its caption, and what to mark in it: kind and `Surprise.which`, or None."""
    score: ImageScore
    caption: str
    mark: tuple[str, int | tuple[int, int]] | None


def choose(scores: Sequence[ImageScore], count: int) -> dict[str, list[Chosen]]:
    """The best, the worst and the most surprising images, by group; `count` of each at most.

    No image is both among the best and the worst, and none without an error is among the worst.
    """
    best = sorted(scores, key=lambda s: (-s.quality, -s.weight))[:count]
    worst = [s for s in sorted(scores, key=lambda s: (s.quality, -s.weight)) if s not in best and s.quality < 1][:count]
    groups = {'best': [Chosen(s, s.summary, None) for s in best], 'worst': [Chosen(s, s.summary, None) for s in worst]}
    for kind in (FALSE_POSITIVE, LARGE_MISS, CONFUSED_AREA):
        with_it = sorted((s for s in scores if kind in s.surprises), key=lambda s: -s.surprises[kind].size)[:count]
        groups[kind] = [Chosen(s, s.surprises[kind].text, (kind, s.surprises[kind].which)) for s in with_it]
    return {group: chosen for group, chosen in groups.items() if chosen}


def most_different(first: Sequence[ImageScore], second: Sequence[ImageScore], count: int
                   ) -> list[tuple[ImageScore, ImageScore]]:
    """Images that two runs predicted with the most different quality, the largest difference first."""
    others = {score.index: score for score in second}
    pairs = [(score, others[score.index]) for score in first if score.index in others]
    pairs = [pair for pair in pairs if pair[0].quality != pair[1].quality]
    return sorted(pairs, key=lambda pair: (-abs(pair[1].quality - pair[0].quality), -pair[0].weight))[:count]
