"""The error types of TIDE, each with the AP that a detector would gain without errors of that type.

Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020,
sections 2.2 and 2.3; where the paper leaves a choice (precedence of the types, several detections that could be fixed
to the same object), it follows the authors' package tidecv, with which a test compares.
"""
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..evaluation.coco_eval import RECALLS
from .overlaps import ImageOverlaps, match

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU; the paper's section 2.2
FALSE_POSITIVES = ('Cls', 'Loc', 'Both', 'Dupe', 'Bkg')
MEANINGS = {
    'Cls': 'right place, wrong class',
    'Loc': 'right class, IoU from 0.1 to 0.5',
    'Both': 'wrong class, IoU from 0.1 to 0.5',
    'Dupe': 'a second detection of an object',
    'Bkg': 'background, IoU below 0.1',
    'Miss': 'an object without any detection',
    'FP': 'all false positives',
    'FN': 'all objects without a match',
}


@dataclass
class ErrorBreakdown:
    """AP at IoU 0.5, what fixing each type would add to it (both 0 to 1), and how many errors of a type there are."""
    ap: float
    gains: dict[str, float]
    counts: dict[str, int]


@dataclass
class _ClassifiedDetections:
    """Every detection of the data set; `target` is the object that a Cls or Loc error would be corrected to, or -1."""
    labels: np.ndarray
    scores: np.ndarray
    correct: np.ndarray
    counted: np.ndarray  # False inside a crowd region, where a detection is neither right nor wrong
    types: np.ndarray
    target: np.ndarray


def error_breakdown(images: Sequence[ImageOverlaps], num_classes: int) -> ErrorBreakdown | None:
    """Classify every error, and compute the AP that each type costs.

    The mean over classes is COCO's: classes without annotated objects do not count.

    Args:
        images: of all images.
        num_classes: labels are below it.

    Returns:
        The breakdown, or None where no object is annotated.
    """
    gt_labels = np.concatenate([np.zeros(0, int), *(image.gt_labels for image in images)])
    if not gt_labels.size:
        return None
    start, parts, matched = 0, [], np.zeros(len(gt_labels), bool)
    for image in images:
        part = _classify(image)
        objects = match(image.iou * image.same_class(), FOREGROUND)
        matched[start + objects[objects >= 0]] = True
        part.target[part.target >= 0] += start
        start += len(image.gt_labels)
        parts.append(part)
    found = _ClassifiedDetections(*(np.concatenate([getattr(part, field.name) for part in parts])
                                    for field in fields(_ClassifiedDetections)))
    fixable = _best_of_each_target(found, matched)
    covered = matched.copy()
    covered[found.target[found.target >= 0]] = True
    objects = np.bincount(gt_labels, minlength=num_classes)
    present = np.flatnonzero(objects)

    def mean_ap(keep, labels=found.labels, scores=found.scores, correct=found.correct, count=objects) -> float:
        return _mean_ap(labels[keep], scores[keep], correct[keep], count, present)

    ap = mean_ap(found.counted)
    fixed = {}
    for name in ('Cls', 'Loc'):
        fix = fixable & (found.types == name)
        labels = np.where(fix, gt_labels[found.target], found.labels)
        fixed[name] = mean_ap(fix | found.counted & (found.types != name), labels, correct=found.correct | fix)
    for name in ('Both', 'Dupe', 'Bkg'):
        fixed[name] = mean_ap(found.counted & (found.types != name))
    fixed['Miss'] = mean_ap(found.counted, count=objects - np.bincount(gt_labels[~covered], minlength=num_classes))
    gains = {name: max(0.0, value - ap) for name, value in fixed.items()}
    gains['FP'] = mean_ap(found.counted, scores=found.correct.astype(float)) - ap
    gains['FN'] = mean_ap(found.counted, count=np.bincount(gt_labels[matched], minlength=num_classes)) - ap
    counts = {name: int((found.counted & (found.types == name)).sum()) for name in FALSE_POSITIVES}
    counts.update(Miss=int((~covered).sum()), FP=int((found.counted & ~found.correct).sum()), FN=int((~matched).sum()))
    return ErrorBreakdown(ap, gains, counts)


def _classify(image: ImageOverlaps) -> _ClassifiedDetections:
    """The detections of one image; targets are indices into its objects."""
    same = image.same_class()
    own, other = image.iou * same, image.iou * ~same
    objects = match(own, FOREGROUND)
    correct = objects >= 0
    used = np.zeros(len(image.gt_labels), bool)
    used[objects[correct]] = True
    best_own, best_other = (values.max(axis=1, initial=0) for values in (own, other))
    loc = (best_own >= BACKGROUND) & (best_own <= FOREGROUND)
    cls = best_other >= FOREGROUND
    duplicate = (own * used).max(axis=1, initial=0) >= FOREGROUND
    background = image.iou.max(axis=1, initial=0) <= BACKGROUND
    types = np.select([correct, loc, cls, duplicate, background], ['', 'Loc', 'Cls', 'Dupe', 'Bkg'], 'Both')
    target = np.full(len(correct), -1)
    if used.size:
        wanted = np.where(types == 'Loc', own.argmax(axis=1), other.argmax(axis=1))
        target = np.where(np.isin(types, ('Loc', 'Cls')) & ~used[wanted], wanted, -1)
    counted = correct | ~image.in_crowd(FOREGROUND)
    return _ClassifiedDetections(image.labels, image.scores, correct, counted, types, target)


def _best_of_each_target(found: _ClassifiedDetections, matched: np.ndarray) -> np.ndarray:
    """Which detections would become correct: the highest-scoring one per target, bool."""
    aiming = np.flatnonzero(found.target >= 0)
    aiming = aiming[np.argsort(-found.scores[aiming], kind='stable')]
    _, first = np.unique(found.target[aiming], return_index=True)
    best = np.zeros(len(found.target), bool)
    best[aiming[first]] = True
    return best


def _mean_ap(labels, scores, correct, objects, classes) -> float:
    """Mean AP over `classes`; one that has neither objects nor detections left does not count."""
    values = []
    for label in classes:
        mine = labels == label
        if objects[label] or mine.any():
            values.append(_average_precision(scores[mine], correct[mine], objects[label]))
    return float(np.mean(values)) if values else 0.0


def _average_precision(scores: np.ndarray, correct: np.ndarray, objects: int) -> float:
    if not objects or not correct.any():
        return 0.0
    hits = correct[np.argsort(-scores, kind='stable')].cumsum()
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    places = np.searchsorted(hits / objects, RECALLS, side='left')
    return float(np.append(precision, 0.0)[places].sum() / len(RECALLS))
