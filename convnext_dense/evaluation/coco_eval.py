"""Box and mask AP by COCO's rules: computed by faster-coco-eval, or by pycocotools as the reference."""
import contextlib
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core.coco import COCO as FasterCOCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import UserError
from .coco_data import index, silent

BACKENDS = ('faster', 'pycocotools')
AREAS = ('all', 'small', 'medium', 'large')  # up to 32^2, 96^2 pixels and beyond: pycocotools' Params.areaRng
MAX_DETS = (1, 10, 100)  # pycocotools' Params.maxDets
IOU_THRS = np.linspace(0.5, 0.95, 10)  # pycocotools' Params.iouThrs
RECALLS = np.linspace(0, 1, 101)  # pycocotools' Params.recThrs, where precision is sampled


@dataclass(frozen=True)
class CocoEvaluation:
    """Precision and recall of one evaluation, of which every AP and AR is a mean.

    Attributes:
        precision: (IoU thresholds, 101 recalls, categories, areas, max_dets); -1 where there is no ground truth.
        recall: (IoU thresholds, categories, areas, max_dets), likewise.
        scores: as precision: the score at which each recall is reached.
        iou_thrs: ascending.
        cat_ids: ascending; of the third axis of precision.
        max_dets: detections per image and category that count, ascending.
    """
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    iou_thrs: np.ndarray
    cat_ids: tuple[int, ...]
    max_dets: tuple[int, ...]

    def ap(self, iou: float | None = None, area: str = 'all', category: int | None = None,
           max_dets: int | None = None) -> float:
        """Average precision, 0 to 1; nan where there is no ground truth to find.

        Args:
            iou: one threshold; None is the mean over all.
            area: of `AREAS`.
            category: an id; None is the mean over those with ground truth.
            max_dets: of ``self.max_dets``; None is the largest.
        """
        return self._mean(self.precision.swapaxes(1, 2), iou, area, category, max_dets)

    def ar(self, iou: float | None = None, area: str = 'all', category: int | None = None,
           max_dets: int | None = None) -> float:
        """Average recall, 0 to 1; arguments as for `ap`."""
        return self._mean(self.recall[:, :, None], iou, area, category, max_dets)

    def curve(self, iou: float | None = None, category: int | None = None) -> np.ndarray:
        """Precision at each of the `RECALLS`, (101,), at the largest ``max_dets``; nan where there is no ground truth.

        Args:
            iou: one threshold; None is the mean over all.
            category: an id; None is the mean over those with ground truth.
        """
        values = self.precision[..., 0, -1]
        values = values if iou is None else values[self.iou_thrs == iou]
        known = (values > -1).all(axis=(0, 1))
        if category is not None:
            known &= np.array(self.cat_ids) == category
        return values[..., known].mean(axis=(0, 2)) if known.any() else np.full(len(RECALLS), np.nan)

    def _mean(self, values, iou, area, category, max_dets) -> float:
        """Mean of what is not -1 in (iou, category, recall, area, max_dets)."""
        last = -1 if max_dets is None else self.max_dets.index(max_dets)
        values = values[..., AREAS.index(area), last]
        if iou is not None:
            values = values[self.iou_thrs == iou]
        if category is not None:
            values = values[:, [self.cat_ids.index(category)]]
        values = values.swapaxes(1, 2)  # pycocotools' order, so that the sum is its sum to the last bit
        values = values[values > -1]
        return float(values.mean()) if values.size else float('nan')

    def stats(self) -> dict[str, float]:
        """COCO's twelve metrics under mmdet's names, in pycocotools' order.

        mAP is at 100 detections per image, as in pycocotools, where that is one of ``max_dets``, the others at the
        largest: with mmdet's (100, 300, 1000) that is 1000.
        """
        sizes = {name[0]: name for name in AREAS[1:]}
        return {'mAP': self.ap(max_dets=100 if 100 in self.max_dets else None),
                'mAP_50': self.ap(iou=0.5), 'mAP_75': self.ap(iou=0.75),
                **{f'mAP_{letter}': self.ap(area=area) for letter, area in sizes.items()},
                **{f'AR@{number}': self.ar(max_dets=number) for number in self.max_dets},
                **{f'AR_{letter}@{self.max_dets[-1]}': self.ar(area=area) for letter, area in sizes.items()}}

    def without_ground_truth(self) -> list[int]:
        """Ids of categories whose AP is nan: no objects, or crowds only."""
        empty = (self.recall[:, :, 0, -1] == -1).all(axis=0)
        return [category for category, nothing in zip(self.cat_ids, empty, strict=True) if nothing]


def evaluate(coco_gt: COCO, detections: list[dict], iou_type: str, *, backend: str = 'faster',
             cat_ids: Sequence[int] | None = None, max_dets: Sequence[int] = MAX_DETS,
             iou_thrs: Sequence[float] = IOU_THRS, use_cats: bool = True,
             mask_ious: Mapping[tuple[int, int], np.ndarray] | None = None) -> CocoEvaluation:
    """Match detections to ground truth by COCO's rules.

    Both backends give the same numbers up to the rounding of means; zeros where there is no detection.

    Args:
        coco_gt: ground truth, an index of pycocotools or mmdet.
        detections: COCO results: ``image_id``, ``category_id``, ``score`` and ``bbox`` (x, y, width, height in
            pixels) or ``segmentation`` (a compressed run-length encoding). Left as they are.
        iou_type: 'bbox' or 'segm'. The area of a mask is the number of its pixels, not that of its box.
        backend: 'faster' or 'pycocotools'.
        cat_ids: categories that count; None is all.
        max_dets: best detections per image and category that count.
        iou_thrs: of a match, 0 to 1.
        use_cats: False evaluates as if all categories were one (proposals).
        mask_ious: (image id, category id) -> IoUs, as `mask_overlaps` computes them; detections then have ``area``
            (pixels) instead of ``segmentation``. For 'segm' and the backend 'faster'.

    Raises:
        UserError: an unknown backend, or ground truth without masks where 'segm' needs them.
    """
    if backend not in BACKENDS:
        raise UserError(f'COCO evaluation: backend must be {" or ".join(map(repr, BACKENDS))}, not {backend!r}')
    if iou_type == 'segm':
        check_segmentations(coco_gt)
    build = _faster if backend == 'faster' else _pycocotools
    with silent(), without_garbage_collection():
        if mask_ious is None:
            evaluator = build(coco_gt, detections, iou_type)
        else:
            evaluator = _KnownOverlaps(coco_gt, detections, mask_ious)
        params = evaluator.params
        params.catIds = sorted(coco_gt.getCatIds() if cat_ids is None else cat_ids)
        params.maxDets, params.useCats = sorted(max_dets), int(use_cats)
        params.iouThrs = np.sort(np.atleast_1d(iou_thrs))
        evaluator.evaluate()
        evaluator.accumulate()
    return CocoEvaluation(*(np.asarray(evaluator.eval[key]) for key in ('precision', 'recall', 'scores')),
                          params.iouThrs, tuple(map(int, params.catIds)) if use_cats else (-1,), tuple(params.maxDets))


def mask_areas(masks: list[dict]) -> np.ndarray:
    """Pixels of each run-length encoded mask, int64."""
    step = 200  # pycocotools 2.0.11 holds the number of masks in a uint8, which numpy 2 refuses from 256 on
    parts = [coco_mask.area(masks[start:start + step]) for start in range(0, len(masks), step)]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


@contextlib.contextmanager
def without_garbage_collection():
    """Switch the garbage collector off: an evaluation makes many dicts without cycles, which take long to search."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _pycocotools(coco_gt: COCO, detections: list[dict], iou_type: str) -> COCOeval:
    shape = 'bbox' if iou_type == 'bbox' else 'segmentation'  # with both, pycocotools takes a mask's area for its box's
    results = [{key: detection[key] for key in ('image_id', 'category_id', 'score', shape)} for detection in detections]
    if results:
        return COCOeval(coco_gt, coco_gt.loadRes(results), iou_type)
    nothing = COCO()  # loadRes cannot take an empty list
    index(nothing, {**coco_gt.dataset, 'annotations': []})
    return COCOeval(coco_gt, nothing, iou_type)


class UnindexedResults(FasterCOCO):
    """COCO results, all of which are evaluated; without an index.

    Results of other images and categories are never evaluated.
    """

    def __init__(self, results: list[dict], images: dict[int, dict]):
        super().__init__()
        self.results, self.imgs = results, images

    def getAnnIds(self, *_, **__) -> list[int]:
        return []

    def loadAnns(self, *_) -> list[dict]:
        return self.results


class _KnownOverlaps(COCOeval_faster):
    """Matches by IoUs that were computed before: as for boxes, since no mask is to be decoded."""

    def __init__(self, coco_gt: COCO, detections: list[dict], ious: Mapping[tuple[int, int], np.ndarray]):
        self.known = ious
        results = [dict(detection, id=number) for number, detection in enumerate(detections, 1)]
        super().__init__(coco_gt, UnindexedResults(results, coco_gt.imgs), 'bbox')

    def computeIoU(self, image: int, category: int) -> np.ndarray | list:
        return self.known.get((image, category), [])


def _faster(coco_gt: COCO, detections: list[dict], iou_type: str) -> COCOeval_faster:
    """As faster-coco-eval's loadRes, with all areas at once and without indices, boxes and masks that are not used."""
    if iou_type == 'bbox':
        areas = [detection['bbox'][2] * detection['bbox'][3] for detection in detections]
    else:
        areas = mask_areas([detection['segmentation'] for detection in detections]).tolist()
    # a mask is compared only where its image has ground truth of its category; elsewhere its area is enough
    compared = {(ann['image_id'], ann['category_id']) for ann in coco_gt.dataset['annotations']}
    results = []
    for number, (detection, area) in enumerate(zip(detections, areas, strict=True), 1):
        image, category = detection['image_id'], detection['category_id']
        result = dict(id=number, image_id=image, category_id=category, score=detection['score'], area=area)
        if iou_type == 'bbox':
            result['bbox'] = detection['bbox']
        elif (image, category) in compared:
            result['segmentation'] = detection['segmentation']
        results.append(result)
    return COCOeval_faster(coco_gt, UnindexedResults(results, coco_gt.imgs), iou_type)


def check_segmentations(coco_gt: COCO) -> None:
    """Raise UserError unless every annotation has a mask."""
    for ann in coco_gt.dataset['annotations']:
        if not ann.get('segmentation'):
            image = coco_gt.imgs[ann['image_id']]
            raise UserError(f'mask AP: annotation {ann["id"]} of image {image.get("file_name") or image["id"]} has no '
                            "segmentation: add it, or evaluate boxes only with metric='bbox'")
