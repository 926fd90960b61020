"""Small data sets in the layouts of COCO, Penn-Fudan and CamVid, for clones without the real ones. Seeded."""
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

COCO_CATEGORIES = {1: 'person', 44: 'bottle', 62: 'chair'}
CAMVID_CLASSES = ('Sky', 'Building', 'Pole', 'Road', 'Pavement', 'Tree', 'SignSymbol', 'Fence', 'Car', 'Pedestrian',
                  'Bicyclist', 'Unlabelled')
HEIGHT, WIDTH = 120, 160


def make_generated(folder: Path) -> Path:
    """Write `folder`/coco, /pennfudan and /camvid; returns `folder`."""
    rng = np.random.default_rng(0)
    make_coco(folder / 'coco', rng)
    make_pennfudan(folder / 'pennfudan', rng)
    make_camvid(folder / 'camvid', rng)
    return folder


def write_image(file: Path, rng: np.random.Generator) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(file, quality=60)


def make_coco(folder: Path, rng: np.random.Generator) -> None:
    """Polygons of one and of two parts, a thin object, crowds as run lengths, images without objects."""
    for split, count in (('train', 18), ('val', 8)):
        images, annotations = [], []
        for index in range(count):
            number = (100 if split == 'train' else 200) + index
            name = f'{number:012d}.jpg'
            write_image(folder / f'{split}2017' / name, rng)
            images.append({'id': number, 'file_name': name, 'width': WIDTH, 'height': HEIGHT, 'license': 3,
                           'coco_url': f'http://example.com/{name}'})
            for position in range(0 if index == count - 1 else 6):
                annotations.append({'id': 10 * number + position, 'image_id': number, 'iscrowd': 0,
                                    'category_id': (1, 62, 1, 62, 44, 62)[position], **polygons(rng, position)})
            if index % 5 == 1:
                annotations.append({'id': 10 * number + 9, 'image_id': number, 'iscrowd': 1, 'category_id': 1,
                                    **run_lengths(rng)})
        write_coco(folder / f'annotations/instances_{split}2017.json', images, annotations, COCO_CATEGORIES)


def polygons(rng: np.random.Generator, position: int) -> dict:
    """A quadrilateral, at position 1 two of them, at position 3 a thin rectangle; box and area belong to them."""
    x, y = rng.uniform(2, 60, 2).round(2)
    w, h = (3.0, 12.0) if position == 3 else rng.uniform(15, 25, 2).round(2)
    lean = 0 if position == 3 else round(w / 4, 2)
    parts = [[(x, y), (x + w - lean, y), (x + w, y + h), (x + lean, y + h)]]
    if position == 1:
        parts.append([(px + w + 1, py) for px, py in parts[0]])
    points = np.concatenate(parts)
    low, size = points.min(0), np.ptp(points, axis=0)
    return {'segmentation': [[float(round(v, 2)) for point in part for v in point] for part in parts],
            'bbox': [round(float(v), 2) for v in (*low, *size)], 'area': float(len(parts) * (w - lean) * h)}


def run_lengths(rng: np.random.Generator) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
    x, y = rng.integers(0, 60, 2)
    mask[y:y + 40, x:x + 50] = 1
    mask[y + 5:y + 9, x + 5:x + 9] = 0
    encoded = coco_mask.encode(mask)
    return {'segmentation': {'size': [HEIGHT, WIDTH], 'counts': encoded['counts'].decode()},
            'bbox': coco_mask.toBbox(encoded).tolist(), 'area': int(mask.sum())}


def write_coco(file: Path, images: list, annotations: list, categories: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({'info': {'year': 2017}, 'images': images, 'annotations': annotations, 'categories': [
        {'id': number, 'name': name, 'supercategory': 'thing'} for number, name in categories.items()]}))


def make_pennfudan(folder: Path, rng: np.random.Generator) -> None:
    """Two people in each image, as ids in PedMasks/ and as run lengths in annotations/."""
    (folder / 'PedMasks').mkdir(parents=True)
    for split, count in (('train', 12), ('val', 4)):
        images, annotations = [], []
        for index in range(count):
            number = (1 if split == 'train' else 101) + index
            write_image(folder / f'images/Ped{number:05d}.jpg', rng)
            images.append({'id': number, 'file_name': f'Ped{number:05d}.jpg', 'width': WIDTH, 'height': HEIGHT})
            ids = np.zeros((HEIGHT, WIDTH), np.uint8)
            for person in (1, 2):
                mask = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
                x, y = 70 * (person - 1) + rng.integers(5, 30), rng.integers(5, 40)
                mask[y:y + 50, x:x + 20] = 1
                mask[y:y + 8, x:x + 6] = 0
                ids[mask == 1] = person
                encoded = coco_mask.encode(mask)
                annotations.append({
                    'id': 10 * number + person, 'image_id': number, 'category_id': 1, 'iscrowd': 0,
                    'bbox': coco_mask.toBbox(encoded).tolist(), 'area': int(mask.sum()),
                    'segmentation': {'size': [HEIGHT, WIDTH], 'counts': encoded['counts'].decode()}})
            Image.fromarray(ids).save(folder / f'PedMasks/Ped{number:05d}_mask.png')
        write_coco(folder / f'annotations/instances_{split}.json', images, annotations, {1: 'person'})


def make_camvid(folder: Path, rng: np.random.Generator) -> None:
    """Label maps of twelve stripes, each with another permutation of the labels; 11 is for pixels without a class."""
    for split, count in (('train', 15), ('val', 5)):
        (folder / 'annotations' / split).mkdir(parents=True)
        for index in range(count):
            write_image(folder / f'images/{split}/{split}{index:03d}.jpg', rng)
            labels = np.repeat(rng.permutation(12).astype(np.uint8), HEIGHT // 12)[:, None].repeat(WIDTH, axis=1)
            Image.fromarray(labels).save(folder / f'annotations/{split}/{split}{index:03d}.png')
    (folder / 'classes.txt').write_text(''.join(f'{name}\n' for name in CAMVID_CLASSES))
