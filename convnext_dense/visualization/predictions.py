"""Annotations and the predictions of `tools/test.py --out`, in the form that `draw` takes."""
import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ..errors import UserError
from .draw import IGNORED, Instances


def read_predictions(path) -> list[dict]:
    """Read the pickle that `tools/test.py --out` wrote. Pickles run code: read only files you made yourself."""
    with open(path, 'rb') as file:
        return pickle.load(file)


def predicted_instances(prediction: Mapping) -> Instances:
    """Instances of one detection result: `pred_instances` with bboxes, scores, labels and, if there, masks."""
    found = prediction['pred_instances']
    masks = found.get('masks')
    if masks is not None:
        is_rle = isinstance(masks, list | tuple)
        masks = decode_masks(masks, prediction['ori_shape'][:2]) if is_rle else np.asarray(masks, bool)
    return Instances(np.asarray(found['labels']), np.asarray(found['bboxes']), masks, np.asarray(found['scores']))


def instances_of(found) -> Instances:
    """Instances from mmdet's InstanceData, whichever of its containers boxes and masks are in."""
    def array(values):
        values = getattr(values, 'tensor', values)  # mmdet's box types
        values = values.to_ndarray() if hasattr(values, 'to_ndarray') else values  # mmdet's mask types
        return np.asarray(values.cpu() if hasattr(values, 'cpu') else values)
    masks = array(found.masks).astype(bool) if 'masks' in found else None
    return Instances(array(found.labels), array(found.bboxes), masks,
                     array(found.scores) if 'scores' in found else None)


def predicted_labels(prediction: Mapping) -> np.ndarray:
    """Label map, uint8 (H, W), of one segmentation result."""
    return np.asarray(prediction['pred_sem_seg']['data']).reshape(prediction['ori_shape'][:2]).astype(np.uint8)


def read_coco_instances(ann_file) -> dict[str, Instances]:
    """Annotated instances of a COCO json file, file name -> instances; crowds are left out.

    Labels count the file's categories from 0, in the order of their ids.
    """
    try:
        content = json.loads(Path(ann_file).read_text())
    except OSError as error:
        raise UserError(f'cannot read the annotations {ann_file}: {error.strerror}') from None
    label_of = {category: i for i, category in enumerate(sorted(c['id'] for c in content['categories']))}
    grouped = {image['id']: [] for image in content['images']}
    for annotation in content['annotations']:
        if not annotation.get('iscrowd'):
            grouped[annotation['image_id']].append(annotation)
    instances = {}
    for image in content['images']:
        found = grouped[image['id']]
        boxes = np.array([a['bbox'] for a in found], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = decode_masks([a['segmentation'] for a in found], (image['height'], image['width']))
        instances[image['file_name']] = Instances(np.array([label_of[a['category_id']] for a in found], int), boxes,
                                                  masks)
    return instances


def read_label_map(path, reduce_zero_label: bool) -> np.ndarray:
    """Read a label PNG as uint8 (H, W); with `reduce_zero_label` 0 becomes 255 and every other value drops by 1."""
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2:
        raise UserError(f'cannot read {path} as a label map: expected an image with one channel')
    return np.where(labels == 0, IGNORED, labels - 1).astype(np.uint8) if reduce_zero_label else labels


def encode_mask(mask: np.ndarray) -> dict:
    """A mask (H, W) as COCO run lengths that json can write."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {'size': [int(side) for side in rle['size']], 'counts': rle['counts'].decode('ascii')}


def decode_masks(segmentations, size: tuple[int, int]) -> np.ndarray:
    """COCO segmentations (polygons, or run lengths as lists, strings or bytes) as bool masks (N, H, W)."""
    masks = np.zeros((len(segmentations), *size), bool)
    for mask, segmentation in zip(masks, segmentations, strict=True):
        if isinstance(segmentation, list):
            segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
        elif isinstance(segmentation['counts'], list):
            segmentation = coco_mask.frPyObjects(segmentation, *size)
        mask[:] = coco_mask.decode(segmentation)
    return masks
