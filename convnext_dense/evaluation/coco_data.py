"""COCO ground truth and results: read, checked, and converted to COCO's own JSON layout."""
import contextlib
import json
import logging
import os
from collections.abc import Sequence

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmengine.fileio import get_text
from mmengine.logging import print_log

from ..errors import UserError, few
from ..utils.files import atomic_write

REQUIRED = {'images': ('id', 'height', 'width'), 'categories': ('id', 'name'),
            'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area')}


def load_ground_truth(ann_file: str, backend_args: dict | None = None, annotated: bool = True) -> COCO:
    """Read a COCO json file into the index that mmdet and pycocotools work with.

    Annotations without ``iscrowd`` are no crowds. Where an annotation id is 0, which pycocotools reads as "no
    match", or appears twice, all are renumbered, since both would be scored wrongly without a warning.

    Args:
        ann_file: path, or what ``backend_args`` can read.
        backend_args: mmengine's, for remote files.
        annotated: whether annotations must be there; the image lists of test servers have none.

    Raises:
        UserError: the file is no json, or lacks a key that the evaluation needs.
    """
    try:
        content = json.loads(get_text(ann_file, backend_args=backend_args))
    except ValueError as error:
        raise UserError(f'{ann_file} could not be read as JSON ({error}): it is damaged or cut off; download or write '
                        'it again') from error
    _check(ann_file, content, annotated)
    annotations = content.setdefault('annotations', [])
    ids = {annotation['id'] for annotation in annotations}
    if 0 in ids or len(ids) < len(annotations):
        print_log(f'{ann_file}: annotation ids have a 0 or appear twice, so they are renumbered from 1 here',
                  logger='current', level=logging.WARNING)
        for number, annotation in enumerate(annotations, 1):
            annotation['id'] = number
    for annotation in annotations:
        annotation.setdefault('iscrowd', 0)
    coco = COCO()
    index(coco, content)
    coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs  # mmdet's names for the maps
    return coco


def index(coco, content: dict) -> None:
    """Give a COCO object of any library its content, without what pycocotools prints."""
    coco.dataset = content
    with silent():
        coco.createIndex()


@contextlib.contextmanager
def silent():
    """Suppress what is printed; pycocotools has no option for that."""
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def category_ids(coco: COCO, classes: Sequence[str], ann_file: str) -> list[int]:
    """Category id of each label, in the order in which mmdet's CocoDataset numbers them: that of the file.

    Raises:
        UserError: the file lacks a class, or has a name twice.
    """
    ids = coco.get_cat_ids(cat_names=list(classes))
    if len(ids) != len(classes):
        found = [category['name'] for category in coco.dataset['categories']]
        raise UserError(f'{ann_file} has {len(ids)} categories with the names of the {len(classes)} classes '
                        f'({few(set(classes) - set(found))} missing; the file has {few(found)}): set metainfo='
                        "dict(classes=...) of the data set to the file's category names, each once")
    return ids


def to_coco(results: Sequence[dict], coco: COCO, cat_ids: Sequence[int], ann_file: str) -> dict[str, list[dict]]:
    """Results of images in COCO's layout: ``bbox`` and, where there are masks, ``segm``; one dict per detection.

    Args:
        results: per image ``img_id``, ``bboxes`` (N, 4; x1, y1, x2, y2 in pixels), ``scores`` (N), ``labels`` (N) and
            perhaps ``masks`` (N run-length encodings) or ``mask_areas`` (N, pixels; the detections then have ``area``
            instead of ``segmentation``), and ``mask_scores`` (N).
        coco: the ground truth.
        cat_ids: category id of each label.
        ann_file: where the ground truth came from, for messages.

    Raises:
        UserError: an image that is not in the ground truth, or as of `check_result`.
    """
    _check_images([result['img_id'] for result in results], coco, ann_file)
    found = {'bbox': []}
    if any('masks' in result or 'mask_areas' in result for result in results):
        found['segm'] = []
    for result in results:
        check_result(result, len(cat_ids), coco.imgs[result['img_id']], ann_file)
        image, labels = result['img_id'], np.asarray(result['labels'])
        boxes = np.asarray(result['bboxes'], np.float64).reshape(-1, 4).copy()
        boxes[:, 2:] -= boxes[:, :2]
        categories, boxes = [cat_ids[label] for label in labels], boxes.tolist()
        scores = np.asarray(result['scores'], np.float64).tolist()
        found['bbox'] += [dict(image_id=image, bbox=box, score=score, category_id=category)
                          for box, score, category in zip(boxes, scores, categories, strict=True)]
        if 'masks' in result:
            key, values = 'segmentation', result['masks']
        elif 'mask_areas' in result:
            key, values = 'area', result['mask_areas'].tolist()
        else:
            continue
        scores = np.asarray(result.get('mask_scores', scores), np.float64).tolist()
        found['segm'] += [{'image_id': image, 'bbox': box, 'score': score, 'category_id': category, key: value}
                          for box, score, category, value in zip(boxes, scores, categories, values, strict=True)]
    return found


def check_result(result: dict, classes: int, image: dict | None, ann_file: str) -> None:
    """Refuse the result of one image, as of `to_coco`, that cannot be scored.

    pycocotools counts a box that is not finite as a match of any object, so such a model would score too high.

    Args:
        classes: number of classes; labels are below it.
        image: of the ground truth, whose size masks must have; None if it is not in it.
        ann_file: where the ground truth came from, for messages.

    Raises:
        UserError: a score or box that is not finite, a label beyond the classes, a mask of another size than the image.
    """
    name = f'image {result["img_id"]}' if image is None else image.get('file_name') or f'image {image["id"]}'
    for key in ('scores', 'bboxes', 'mask_scores'):
        if not np.isfinite(np.asarray(result.get(key, 0), np.float64)).all():
            raise UserError(f'{name}: the model predicts {key} that are not finite (NaN or infinity), which cannot be '
                            'evaluated: test another checkpoint, or in float32')
    labels = np.asarray(result['labels'])
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(f'{name}: the model predicts label {labels.max()}, but the data set has {classes} classes, 0 '
                        f'to {classes - 1}: set num_classes of every head to {classes}, or test with the data set the '
                        'model was trained for')
    if image is None:
        return
    for mask in result.get('masks', ()):
        if tuple(mask['size']) != (image['height'], image['width']):
            raise UserError(f'{name}: predicted masks are {tuple(mask["size"])} (height, width), but {ann_file} says '
                            f'{(image["height"], image["width"])}: correct height and width there, or have the model '
                            'return masks of the original size')


def write_detections(detections: dict[str, list[dict]], prefix: str) -> dict[str, str]:
    """Write ``PREFIX.bbox.json`` and ``PREFIX.segm.json``, as COCO's test server takes them; kind -> file name."""
    files = {}
    for kind, entries in detections.items():
        files[kind] = f'{prefix}.{kind}.json'
        with atomic_write(files[kind]) as part, part.open('w') as out:
            json.dump(entries, out, default=_bytes_as_text)
    return files


def _check(ann_file: str, content, annotated: bool) -> None:
    if not isinstance(content, dict):
        raise UserError(f'{ann_file}: expected COCO ground truth, a JSON object with {few(REQUIRED)}, found a '
                        f'{type(content).__name__}: name the annotations, not a result file')
    for key, fields in REQUIRED.items():
        if key not in content and (annotated or key != 'annotations'):
            raise UserError(f'{ann_file}: expected COCO ground truth with the key {key!r}, found {few(content)}: name '
                            'the file that has the annotations of this data set')
        for entry in content.get(key, ()):
            for field in fields:
                if field not in entry:
                    raise UserError(f'{ann_file}: entry {entry.get("id")} of {key!r} has no {field!r}, which the '
                                    'evaluation needs: add it to every entry')


def _check_images(predicted: list, coco: COCO, ann_file: str) -> None:
    unknown = [image for image in predicted if image not in coco.imgs]
    if unknown:
        raise UserError(f'{len(unknown)} of {len(predicted)} predicted images are not in {ann_file} (ids '
                        f'{few(unknown)}; the file has {few(coco.imgs)}): evaluate with the ann_file of the data set '
                        'that was predicted')
    missing = len(coco.imgs) - len(set(predicted))
    if missing:
        print_log(f'{missing} of {len(coco.imgs)} images of {ann_file} were not predicted; each of their objects '
                  'counts as missed', logger='current', level=logging.WARNING)


def _bytes_as_text(value):
    """Convert the counts of a compressed run-length encoding for json."""
    if isinstance(value, bytes):
        return value.decode('ascii')
    raise TypeError(f'{type(value).__name__} in a detection, which json cannot write')
