"""Detections generated from ground truth and noise, to measure evaluation without a model."""
from collections import defaultdict

import numpy as np
from pycocotools import mask as coco_mask


def enlarge(content: dict, images: int) -> dict:
    """COCO ground truth with ``images`` images: those of ``content`` in turn, each time with ids of their own."""
    annotations = _by_image(content)
    out = dict(images=[], annotations=[], categories=content['categories'])
    for number in range(images):
        image = content['images'][number % len(content['images'])]
        out['images'].append({**image, 'id': number + 1})
        for annotation in annotations[image['id']]:
            out['annotations'].append({**annotation, 'id': len(out['annotations']) + 1, 'image_id': number + 1})
    return out


def noisy_detections(content: dict, per_image: int, seed: int = 0, misplaced: float = 0.5,
                     mislabelled: float = 0.2) -> list[dict]:
    """COCO results with boxes and masks: ground truth moved, scaled, mislabelled, or of other images.

    Args:
        content: COCO ground truth with masks.
        per_image: detections of every image.
        seed: of the random numbers.
        misplaced: share of detections that are taken from any image, so mostly false.
        mislabelled: share with a random category.

    Returns:
        dicts with image_id, category_id, score (float32 precision, random), bbox and segmentation.
    """
    rng = np.random.default_rng(seed)
    annotations, everywhere = _by_image(content), content['annotations']
    categories = [category['id'] for category in content['categories']]
    detections = []
    for image in content['images']:
        own = annotations[image['id']]
        for _ in range(per_image):
            source = everywhere if not own or rng.random() < misplaced else own
            annotation = source[rng.integers(len(source))]
            mask = _moved_mask(rng, annotation, image)
            wrong = rng.random() < mislabelled
            detections.append(dict(
                image_id=image['id'], score=float(rng.random(dtype=np.float32)), bbox=coco_mask.toBbox(mask).tolist(),
                category_id=categories[rng.integers(len(categories))] if wrong else annotation['category_id'],
                segmentation=dict(size=mask['size'], counts=mask['counts'].decode('ascii'))))
    return detections


def generated_ground_truth(images: int, seed: int = 0) -> dict:
    """COCO ground truth of stars on 640 x 480, 7 per image in 80 categories, about as many as COCO has."""
    rng = np.random.default_rng(seed)
    content = dict(images=[dict(id=i + 1, width=640, height=480, file_name=f'{i + 1}.jpg') for i in range(images)],
                   categories=[dict(id=i + 1, name=f'class {i + 1}') for i in range(80)], annotations=[])
    for image in content['images']:
        for _ in range(7):
            angle, radius = np.linspace(0, 2 * np.pi, 30, endpoint=False), rng.uniform(5, 120) * rng.uniform(0.7, 1, 30)
            points = rng.uniform((0, 0), (640, 480)) + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
            polygon = points.clip(0, (639, 479))
            low, size = polygon.min(0), np.ptp(polygon, 0)
            content['annotations'].append(dict(
                id=len(content['annotations']) + 1, image_id=image['id'], category_id=int(rng.integers(80)) + 1,
                iscrowd=0, bbox=[*low.tolist(), *size.tolist()], area=float(size.prod()),
                segmentation=[polygon.ravel().tolist()]))
    return content


def _by_image(content: dict) -> dict[int, list[dict]]:
    groups = defaultdict(list)
    for annotation in content['annotations']:
        groups[annotation['image_id']].append(annotation)
    return groups


def _moved_mask(rng: np.random.Generator, annotation: dict, image: dict) -> dict:
    """The object's mask, scaled and shifted by about a tenth of its size and cut at the image's border."""
    x, y, width, height = annotation['bbox']
    polygons = annotation['segmentation']
    if isinstance(polygons, dict):  # a crowd's run-length encoding: its box will do
        polygons = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    scale, shift = rng.normal(1, 0.1), rng.normal(0, 0.08, 2) * (width, height)
    centre, border = np.array((x + width / 2, y + height / 2)), (image['width'], image['height'])
    moved = [((np.reshape(polygon, (-1, 2)) - centre) * scale + centre + shift).clip(0, border).ravel().tolist()
             for polygon in polygons]
    return coco_mask.merge(coco_mask.frPyObjects(moved, image['height'], image['width']))
