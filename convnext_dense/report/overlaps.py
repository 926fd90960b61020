"""Overlaps of detections with annotated objects, image by image, and their greedy matching."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

KINDS = {'bbox': 'box', 'segm': 'mask'}  # COCO's name of a kind of IoU -> ours
MAX_DETECTIONS = 100  # per image, the most certain ones, as in COCO's evaluation


@dataclass
class ImageOverlaps:
    """One image's D detections, the most certain first, G annotated objects and C crowd regions.

    Args:
        image_id: of the annotation file.
        labels, scores: of the detections, (D,).
        gt_labels: of the objects, (G,).
        gt_areas: the objects' shares of the image, 0 to 1, (G,).
        iou: of boxes or masks, (D, G).
        crowd_labels: (C,).
        crowd_overlap: share of each detection that lies in each crowd region, (D, C).
    """
    image_id: int
    labels: np.ndarray
    scores: np.ndarray
    gt_labels: np.ndarray
    gt_areas: np.ndarray
    iou: np.ndarray
    crowd_labels: np.ndarray
    crowd_overlap: np.ndarray

    def same_class(self) -> np.ndarray:
        """Which detection has the class of which object, bool (D, G)."""
        return self.labels[:, None] == self.gt_labels

    def in_crowd(self, threshold: float) -> np.ndarray:
        """Which detections lie, by more than `threshold`, in a crowd region of their class, bool (D,)."""
        own = self.labels[:, None] == self.crowd_labels
        return (own & (self.crowd_overlap > threshold)).any(axis=1)


def load_overlaps(coco, predictions: Sequence[Mapping], category_ids: Sequence[int], kind: str) -> list[ImageOverlaps]:
    """The overlaps of every image.

    Args:
        coco: the annotations, an index of pycocotools or mmdet.
        predictions: as of `read_predictions`; their images and labels are in the annotations.
        category_ids: the category of each label.
        kind: 'bbox' or 'segm', whose IoU counts.
    """
    label_of = {category: label for label, category in enumerate(category_ids)}
    return [_image_overlaps(coco, prediction, label_of, kind) for prediction in predictions]


def match(iou: np.ndarray, threshold: float) -> np.ndarray:
    """Give each detection, in order, the free object that it overlaps most, by at least `threshold` (above 0).

    Args:
        iou: (D, G), the most certain detection first.

    Returns:
        Index of the object, or -1, for each detection, int (D,).
    """
    free = iou.copy()
    matched = np.full(len(iou), -1)
    for detection in np.flatnonzero((iou >= threshold).any(axis=1)):
        best = free[detection].argmax()
        if free[detection, best] >= threshold:
            matched[detection] = best
            free[:, best] = 0
    return matched


def _image_overlaps(coco, prediction: Mapping, label_of: Mapping[int, int], kind: str) -> ImageOverlaps:
    image = coco.imgs[prediction['img_id']]
    scores, labels = np.asarray(prediction['scores'], float), np.asarray(prediction['labels'], int)
    order = np.argsort(-scores, kind='stable')[:MAX_DETECTIONS]
    shapes = _boxes(prediction['bboxes'])[order] if kind == 'bbox' else [prediction['masks'][i] for i in order]
    annotations = [item for item in coco.imgToAnns[image['id']] if item['category_id'] in label_of]
    objects = [item for item in annotations if not item.get('iscrowd')]
    crowds = [item for item in annotations if item.get('iscrowd')]
    size = image['height'] * image['width']
    return ImageOverlaps(
        image['id'], labels[order], scores[order],
        np.array([label_of[item['category_id']] for item in objects], int),
        np.array([item['area'] / size for item in objects]),
        _overlap(shapes, [_shape(coco, item, kind) for item in objects], crowd=False),
        np.array([label_of[item['category_id']] for item in crowds], int),
        _overlap(shapes, [_shape(coco, item, kind) for item in crowds], crowd=True))


def _boxes(corners) -> np.ndarray:
    """x1 y1 x2 y2 boxes as x y width height, float (N, 4)."""
    boxes = np.array(corners, float).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _shape(coco, annotation: Mapping, kind: str):
    return annotation['bbox'] if kind == 'bbox' else coco.annToRLE(annotation)


def _overlap(found, annotated: list, crowd: bool) -> np.ndarray:
    if not len(found) or not annotated:
        return np.zeros((len(found), len(annotated)))
    if not isinstance(annotated[0], dict):
        annotated = np.array(annotated, float)
    return np.asarray(coco_mask.iou(found, annotated, [crowd] * len(annotated)))
