"""COCO's AP in full: the whole array of precisions, from which curves and per-class figures are read."""
from collections.abc import Mapping, Sequence

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

RECALLS = np.linspace(0, 1, 101)  # where COCO samples the precision
IOUS = np.linspace(0.5, 0.95, 10)
AREAS = ('all', 'small', 'medium', 'large')  # small: below 32 x 32 pixels; large: above 96 x 96


class AveragePrecision:
    """Precision and recall of a set of detections, by COCO's rules, at most 100 detections an image.

    Args:
        truth: annotations, a `COCO` of faster-coco-eval.
        predictions: as `tools/test.py --out` writes them.
        category_ids: the category of each label.
        kind: 'bbox' or 'segm', whose IoU counts.

    Attributes:
        precision: (10 IoUs, 101 recalls, K classes, 4 areas); NaN for a class without objects of that area.
        recall: (10 IoUs, K classes, 4 areas).
    """

    def __init__(self, truth: COCO, predictions: Sequence[Mapping], category_ids: Sequence[int], kind: str):
        results = [item for prediction in predictions for item in _results(prediction, category_ids, kind)]
        evaluation = COCOeval_faster(truth, truth.loadRes(results), kind, print_function=lambda *_: None)
        evaluation.params.imgIds = sorted(prediction['img_id'] for prediction in predictions)
        evaluation.params.catIds = sorted(category_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        order = np.searchsorted(sorted(category_ids), category_ids)
        precision, recall = (np.asarray(evaluation.eval[key])[..., -1] for key in ('precision', 'recall'))
        precision, recall = precision[:, :, order], recall[:, order]
        self.precision = np.where(precision == -1, np.nan, precision)
        self.recall = np.where(recall == -1, np.nan, recall)

    def ap(self, iou: float | None = None, area: str = 'all') -> float | None:
        """AP from 0 to 1, at one IoU or the mean over 0.5 to 0.95; None where no object is annotated."""
        return _mean(self._at(iou)[..., AREAS.index(area)])

    def ar(self) -> float | None:
        """Average recall over IoU 0.5 to 0.95, at most 100 detections an image."""
        return _mean(self.recall[..., 0])

    def class_ap(self) -> list[float | None]:
        """AP over IoU 0.5 to 0.95 of each class."""
        return [_mean(self.precision[:, :, label, 0]) for label in range(self.precision.shape[2])]

    def curve(self, iou: float | None = None, label: int | None = None) -> np.ndarray:
        """Precision at each of the 101 recalls, the mean over IoUs and classes that are not named; (101,)."""
        values = self._at(iou)[..., 0]
        values = values if label is None else values[..., [label]]
        return values[..., ~np.isnan(values[0, 0])].mean(axis=(0, 2))

    def _at(self, iou: float | None) -> np.ndarray:
        return self.precision if iou is None else self.precision[[int(np.argmin(np.abs(IOUS - iou)))]]


def _results(prediction: Mapping, category_ids: Sequence[int], kind: str) -> list[dict]:
    found = prediction['pred_instances']
    corners = np.array(found['bboxes'], float).reshape(-1, 4)
    boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist()
    key, shapes = ('bbox', boxes) if kind == 'bbox' else ('segmentation', found['masks'])
    categories = [category_ids[int(label)] for label in found['labels']]
    return [{'image_id': prediction['img_id'], 'category_id': category, 'score': float(score), key: shape}
            for category, score, shape in zip(categories, found['scores'], shapes, strict=True)]


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None
