"""Anchors that fit a data set's objects: the fewest of which nearly every object has one that overlaps it well."""
from dataclasses import dataclass
from itertools import product

import numpy as np

from ..utils.anchors import best_ious
from .objects import Objects

STRIDES = (4, 8, 16, 32, 64)  # pixels, of the recipes' feature pyramid
MATCH_IOU = 0.5
COVERED = 0.9  # share of the objects that should have an anchor with this IoU
SAMPLED = 5000  # objects that are looked at
BASES = tuple(round(2 ** (step / 2), 2) for step in range(9))  # 1 to 16 strides, two an octave
# factors of the base; pyramid levels are an octave apart. Factors 4 and 8 extend the range of sizes.
FACTORS = {1: ((1.0,),), 2: ((1.0, 2 ** 0.5), (1.0, 4.0), (1.0, 8.0)), 3: ((1.0, 2 ** (1 / 3), 2 ** (2 / 3)),)}


@dataclass(frozen=True)
class Anchors:
    """Sizes and shapes of mmdet's AnchorGenerator, the same at every stride.

    Args:
        scales: square root of an anchor's area, in strides.
        ratios: height over width.
    """
    scales: tuple[float, ...] = (8.0,)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    @property
    def count(self) -> int:
        """Anchors at every position."""
        return len(self.scales) * len(self.ratios)


RECIPE = Anchors()  # of Mask R-CNN and Cascade Mask R-CNN as published


def ious_of(objects: Objects, anchors: Anchors) -> np.ndarray:
    """IoU of each object with the anchor that overlaps it most, (N,)."""
    shapes = np.array([(scale * ratio ** -0.5, scale * ratio ** 0.5)
                       for scale, ratio in product(anchors.scales, anchors.ratios)])
    return best_ious(objects.boxes, objects.sizes[objects.images], [(stride, stride * shapes) for stride in STRIDES])


def covered(objects: Objects, anchors: Anchors) -> float:
    """Share of the objects that have an anchor with an IoU of `MATCH_IOU`, 0 to 1."""
    return float((ious_of(objects.sample(SAMPLED), anchors) >= MATCH_IOU).mean())


def fit_anchors(objects: Objects, most: int = 9) -> Anchors:
    """The recipe's anchors where they cover `COVERED` of the objects, since published weights know them.

    Otherwise the fewest per position that do, but not fewer than the recipe's three; of several, those with the largest
    mean IoU. Where none does, those that cover most.

    Args:
        objects: at least one, in pixels of the network's input.
        most: anchors per position; 3 where a detector's weights are loaded, whose RPN has the recipe's number.
    """
    objects = objects.sample(SAMPLED)
    if covered(objects, RECIPE) >= COVERED:
        return RECIPE
    best = {}
    for anchors in _candidates(objects):
        if anchors.count > most:
            continue
        ious = ious_of(objects, anchors)
        share = (ious >= MATCH_IOU).mean()
        value = (share >= COVERED, share if share < COVERED else ious.mean())
        best[anchors.count] = max(best.get(anchors.count, ((False, 0.0), RECIPE)), (value, anchors),
                                  key=lambda entry: entry[0])
    for count in sorted(best):
        if best[count][0][0]:
            return best[count][1]
    return max(best.values(), key=lambda entry: entry[0])[1]


def _candidates(objects: Objects) -> list[Anchors]:
    """3, 4, 6 or 9 anchors per position, with the recipe's ratios and with ones from the data."""
    size = objects.boxes[:, 2:] - objects.boxes[:, :2]
    logs = np.log2(size[:, 1] / size[:, 0])
    ratios = {number: [tuple(float(value) for value in np.round(2 ** np.quantile(logs, quantiles), 2))]
              for number, quantiles in ((1, [0.5]), (2, [0.2, 0.8]), (3, [0.1, 0.5, 0.9]))}
    ratios[3].append(RECIPE.ratios)
    found = []
    for scales, shapes in ((1, 3), (3, 1), (2, 2), (2, 3), (3, 2), (3, 3)):
        for base, factors, chosen in product(BASES, FACTORS[scales], ratios[shapes]):
            found.append(Anchors(tuple(round(base * factor, 2) for factor in factors), chosen))
    return found
