"""Overlaps of an image's predicted masks with its ground truth, computed where the masks are."""
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from .coco_eval import mask_areas


def mask_overlaps(result: dict, coco: COCO, cat_ids: Sequence[int], max_dets: int) -> dict:
    """What the evaluation needs of an image's masks, which is small: areas and overlaps.

    Args:
        result: of one image, as `to_coco` takes it, with ``masks``.
        coco: the ground truth.
        cat_ids: category id of each label.
        max_dets: best detections per category that count.

    Returns:
        ``mask_areas`` (N) int64 pixels, and ``mask_ious``: category id -> (detections by descending score, ground
        truth in the file's order) IoU, for categories that have both; with a crowd, the share of the detection in it.
    """
    labels, masks = np.asarray(result['labels']), result['masks']
    scores = np.asarray(result.get('mask_scores', result['scores']), np.float64)
    truth = {}
    for annotation in coco.imgToAnns.get(result['img_id'], ()):
        truth.setdefault(annotation['category_id'], []).append(annotation)
    ious = {}
    for label in np.unique(labels).tolist():
        annotations = truth.get(cat_ids[label])
        if annotations:
            found = np.flatnonzero(labels == label)
            found = found[np.argsort(-scores[found], kind='mergesort')][:max_dets]
            ious[cat_ids[label]] = coco_mask.iou([masks[index] for index in found],
                                                 [coco.annToRLE(annotation) for annotation in annotations],
                                                 [int(annotation['iscrowd']) for annotation in annotations])
    return dict(mask_areas=mask_areas(masks), mask_ious=ious)
