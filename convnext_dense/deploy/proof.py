"""Whether an exported file predicts what the trained model predicts, on images."""
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import UserError
from ..inference.results import Detections, Segmentation


@dataclass(frozen=True)
class Limits:
    """The largest differences at which a file passes.

    Args:
        box: of a coordinate of matched detections, in pixels.
        score: of matched detections.
        mask: share of a mask's pixels, relative to the larger area, by which matched masks may differ.
        missing: share of detections without a match.
        labels: share of an image's pixels with another class.
    """
    box: float
    score: float
    mask: float
    missing: float
    labels: float


# float32: the acceptance limit of boxes; a mask's border may move by the pixels whose probability is the threshold.
# float16 has 11 bits: a coordinate near 1000 px is rounded to 0.5 px, and close scores change their order.
LIMITS = {'float32': Limits(0.01, 1e-3, 0.01, 0.01, 1e-3), 'float16': Limits(2.0, 0.02, 0.05, 0.05, 0.01)}


@dataclass
class Differences:
    """The largest differences seen, named as in `Limits`, how much was compared, and `losses.Loss` of int8."""
    box: float = 0.0
    score: float = 0.0
    mask: float = 0.0
    missing: float = 0.0
    labels: float = 0.0
    images: int = 0
    detections: int | None = None
    losses: list = field(default_factory=list)

    def __str__(self) -> str:
        if self.detections is not None:
            return (f'{self.detections} detections in {self.images} images: boxes within {self.box:.2g} px, scores '
                    f'within {self.score:.2g}, masks within {self.mask:.2%} of their pixels, '
                    f'{self.missing:.1%} without a match')
        return f'{self.images} images: {self.labels:.2g} of an image\'s pixels with another class at most'


def compare(expected: Sequence, found: Sequence) -> Differences:
    """Compare results of the same images, those of the trained model first."""
    seen = Differences(images=len(expected))
    missing = 0
    for theirs, ours in zip(expected, found, strict=True):
        if isinstance(theirs, Segmentation):
            seen.labels = max(seen.labels, float((theirs.labels != ours.labels).mean()))
            continue
        pairs = match(theirs, ours)
        seen.detections = (seen.detections or 0) + len(theirs)
        missing += len(theirs) + len(ours) - 2 * len(pairs)
        for one, other in pairs:
            seen.box = max(seen.box, float(np.abs(theirs.boxes[one] - ours.boxes[other]).max()))
            seen.score = max(seen.score, float(abs(theirs.scores[one] - ours.scores[other])))
            if theirs.masks is not None:
                area = max(theirs.masks[one].sum(), ours.masks[other].sum(), 1)
                # of small masks a few pixels are a large share
                wrong = int((theirs.masks[one] != ours.masks[other]).sum())
                seen.mask = max(seen.mask, wrong / area if wrong > 2 else 0.0)
    if seen.detections:
        seen.missing = missing / (2 * seen.detections)
    return seen


def match(theirs: Detections, ours: Detections) -> list[tuple[int, int]]:
    """Pairs of detections with the same label and boxes that overlap by 0.9 or more, best scores first."""
    free, pairs = np.ones(len(ours), bool), []
    if not len(ours):
        return pairs
    for one in range(len(theirs)):
        box = theirs.boxes[one]
        low, high = np.maximum(box[:2], ours.boxes[:, :2]), np.minimum(box[2:], ours.boxes[:, 2:])
        shared = (high - low).clip(0).prod(1)
        areas = (ours.boxes[:, 2:] - ours.boxes[:, :2]).prod(1)
        union = areas + (box[2:] - box[:2]).prod() - shared
        overlap = np.where(free & (ours.labels == theirs.labels[one]), shared / np.maximum(union, 1e-9), -1)
        # equal boxes without area overlap by nothing
        overlap = np.where((overlap >= 0) & (np.abs(ours.boxes - box).max(1) < 0.01), 1, overlap)
        other = int(overlap.argmax())
        if overlap[other] >= 0.9:
            free[other] = False
            pairs.append((one, other))
    return pairs


def check(seen: Differences, limits: Limits, file: str) -> None:
    """Raises UserError where a difference is above its limit, or where there was nothing to compare."""
    if seen.detections == 0:
        raise UserError(f'{file} is not written: the trained model finds nothing in the {seen.images} images to '
                        'compare on; name some with objects with --images')
    above = [f'{name} {getattr(seen, name):.3g} (limit {limit:g})' for name, limit in vars(limits).items()
             if getattr(seen, name) > limit]
    if above:
        raise UserError(f'{file} is not written: it predicts otherwise than the trained model ({", ".join(above)}; '
                        f'{seen}); use --precision float32, or report it with the config')
