"""Predictions made from annotations by damage of every kind, as `read_predictions` returns them."""
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask


def noisy_detections(truth, images_dir=Path('val2017'), seed: int = 0, masks: bool = True) -> list[dict]:
    """Detections with jittered boxes, wrong classes, duplicates, misses and inventions, for every image of `truth`.

    Labels count the annotations' categories in the order of their ids; all scores differ.
    """
    random = np.random.default_rng(seed)
    categories = sorted(truth.cats)
    return [_detections_of(truth, image, images_dir, categories, random, masks) for image in truth.imgs.values()]


def _detections_of(truth, image, images_dir, categories, random, masks) -> dict:
    height, width = image['height'], image['width']
    boxes, labels, rles = [], [], []

    def add(box, label, mask=None):
        shift = random.normal(0, 0.12, 2) * box[2:] * random.integers(0, 2)
        scale = np.exp(random.normal(0, 0.15, 2) * random.integers(0, 2))
        corner = box[:2] + shift
        boxes.append([*corner, *(corner + box[2:] * scale)])
        labels.append(label)
        if masks:
            if mask is None:
                mask = np.zeros((height, width), np.uint8)
                mask[int(box[1]):int(box[1] + box[3]) + 1, int(box[0]):int(box[0] + box[2]) + 1] = 1
            rles.append(coco_mask.encode(np.asfortranarray(np.roll(mask, np.rint(shift[::-1]).astype(int), (0, 1)))))

    for annotation in truth.imgToAnns[image['id']]:
        mask = truth.annToMask(annotation) if masks else None
        for _ in range(random.choice([0, 1, 2], p=[0.2, 0.65, 0.15])):
            label = categories.index(annotation['category_id'])
            if random.random() < 0.2:
                label = int(random.integers(len(categories)))
            add(np.array(annotation['bbox'], float), label, mask)
    for _ in range(random.integers(0, 4)):
        size = random.uniform(0.05, 0.4, 2) * (width, height)
        add(np.array([*random.uniform(0, 0.5, 2) * (width, height), *size]), int(random.integers(len(categories))))
    found = {'bboxes': np.array(boxes, np.float32).reshape(-1, 4), 'labels': np.array(labels, int),
             'scores': (random.permutation(np.linspace(0.05, 0.99, len(labels)))
                        + random.uniform(0, 1e-3, len(labels))).astype(np.float32)}
    if masks:
        found['masks'] = rles
    return {'img_id': image['id'], 'img_path': str(images_dir / image['file_name']), 'ori_shape': (height, width),
            **found}


def noisy_label_maps(data_root, seed: int = 0) -> list[dict]:
    """Label maps of the validation images in an ADE20K layout, with a band of every image changed to other classes."""
    random = np.random.default_rng(seed)
    predictions = []
    for image in sorted((data_root / 'images/validation').glob('*.jpg')):
        labels = cv2.imread(str(data_root / f'annotations/validation/{image.stem}.png'), cv2.IMREAD_UNCHANGED)
        labels = np.maximum(labels.astype(int) - 1, 0)
        rows = slice(*sorted(random.integers(0, len(labels), 2)))
        labels[rows] = (labels[rows] + random.integers(1, 4)) % 4
        predictions.append({'img_path': str(image), 'ori_shape': labels.shape,
                            'labels': labels.astype(np.uint8)})
    return predictions
