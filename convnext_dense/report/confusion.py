"""Confusion matrices of integers, rows by ground truth and columns by prediction, and metrics computed from them."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .overlaps import ImageOverlaps, match

MIN_SCORE = 0.3  # detections below it are neither counted here nor drawn
MIN_IOU = 0.5


def detection_confusion(images: Sequence[ImageOverlaps], num_classes: int) -> np.ndarray:
    """Class-agnostic greedy confusion matrix of detections, (K + 1, K + 1); the last row and column are background.

    Detections with a score from 0.3, the most certain first, take the free object of any class that they overlap most,
    with an IoU of at least 0.5. An object without detection is in the last column, a detection without object in the
    last row, unless it lies in a crowd region of its class.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), int)
    for image in images:
        kept = image.scores >= MIN_SCORE
        objects = match(image.iou[kept], MIN_IOU)
        hit = objects >= 0
        np.add.at(matrix, (image.gt_labels[objects[hit]], image.labels[kept][hit]), 1)
        missed = np.delete(image.gt_labels, objects[hit])
        np.add.at(matrix, (missed, num_classes), 1)
        invented = image.labels[kept][~hit & ~image.in_crowd(MIN_IOU)[kept]]
        np.add.at(matrix, (num_classes, invented), 1)
    return matrix


@dataclass
class Agreement:
    """IoU and recall of each class of a label confusion matrix, 0 to 1; NaN where a class does not occur.

    As mmseg's IoUMetric: IoU of a class is its hits over ground truth and prediction together, accuracy its hits over
    the ground truth; aAcc is the share of all pixels that are right.
    """
    iou: np.ndarray
    accuracy: np.ndarray
    all_accuracy: float

    @classmethod
    def of(cls, matrix: np.ndarray) -> 'Agreement':
        hits, labelled, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
        union = labelled + predicted - hits
        iou = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
        accuracy = np.where(labelled > 0, hits / np.maximum(labelled, 1), np.nan)
        return cls(iou, accuracy, hits.sum() / labelled.sum() if labelled.any() else np.nan)

    @staticmethod
    def mean(values: np.ndarray) -> float | None:
        """Mean over the classes that occur; None where none does."""
        known = values[~np.isnan(values)]
        return float(known.mean()) if known.size else None


def row_shares(matrix: np.ndarray) -> np.ndarray:
    """Each row divided by its sum, 0 to 1; NaN for a class that does not occur."""
    total = matrix.sum(axis=1, keepdims=True)
    return np.where(total > 0, matrix / np.maximum(total, 1), np.nan)


def most_confused(matrix: np.ndarray, count: int) -> list[tuple[int, int]]:
    """(true, predicted) class of the largest off-diagonal entries, the largest first."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=int))
    order = np.argsort(-wrong, axis=None, kind='stable')[:count]
    return [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True)
            if wrong[row, column]]
