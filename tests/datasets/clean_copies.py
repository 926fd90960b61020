"""Small clean sets made of real data, and copies of them that faults can be planted into."""
import json
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

COCO_CATEGORIES = (1, 62)  # person and chair: enough of both in few images
CAMVID_CLASSES = {0: 'Sky', 1: 'Building', 3: 'Road', 8: 'Car'}  # those in nearly every frame; the rest is ignored
SEG_INFO = {'task': 'seg', 'classes': list(CAMVID_CLASSES.values()), 'palette': [[0, 0, 0]] * 4,
            'source': 'label-pngs', 'ignore_index': 255, 'img_suffix': '.jpg', 'seg_map_suffix': '.png',
            'splits': {split: {'images': 0, 'pixels': dict.fromkeys(CAMVID_CLASSES.values(), 0),
                               'img_prefix': f'images/{split}/', 'seg_prefix': f'annotations/{split}/'}
                       for split in ('train', 'val')}}


class CocoCopy:
    """A copy of a COCO-like set: `train` and `val` are the contents of its json files; `save` writes them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.train, self.val = (json.loads(self.json_file(split).read_text()) for split in ('train', 'val'))

    def json_file(self, split: str) -> Path:
        return self.folder / f'annotations/instances_{split}.json'

    def image_file(self, number: int, split: str = 'train') -> Path:
        return self.folder / split / getattr(self, split)['images'][number]['file_name']

    def annotation(self, number: int) -> dict:
        return self.train['annotations'][2 * number]  # the one after it is free, too

    def add_image(self, name: str, **record) -> None:
        """Append a record to the training images."""
        known = max(image['id'] for image in self.train['images'])
        self.train['images'].append({'id': known + 1, 'file_name': name, 'width': 64, 'height': 48, **record})

    def save(self) -> None:
        for split in ('train', 'val'):
            rewrite(self.json_file(split), json.dumps(getattr(self, split)).encode())


class LabelCopy:
    """A copy of a label-PNG set."""

    def __init__(self, folder: Path):
        self.folder = folder

    def image_file(self, number: int, split: str = 'train') -> Path:
        return sorted((self.folder / 'images' / split).iterdir())[number]

    def label_file(self, number: int) -> Path:
        return self.folder / f'annotations/train/{self.image_file(number).stem}.png'

    def save(self) -> None:
        """Nothing: files are changed at once."""


def rewrite(file: Path, content: bytes) -> None:
    """Replace a file, which may be a hard link to the clean set's."""
    file.unlink(missing_ok=True)
    file.write_bytes(content)


def save_image(file: Path, image: Image.Image, **options) -> None:
    file.unlink(missing_ok=True)
    image.save(file, **options)


def copy_of(clean: Path, folder: Path):
    """A copy made of hard links, ready for faults."""
    shutil.copytree(clean, folder, copy_function=os.link)
    return LabelCopy(folder) if (folder / 'dataset.json').is_file() else CocoCopy(folder)


def make_clean_coco(source: Path, folder: Path, train: int, val: int, categories: tuple[int, ...], names: dict) -> None:
    """Copy the first images that have objects of `categories`, without crowds."""
    for split, wanted in (('train', train), ('val', val)):
        content = json.loads((source / names[split][0]).read_text())
        kept = [a for a in content['annotations'] if a['category_id'] in categories and not a['iscrowd']]
        with_both = [image for image in content['images']
                     if set(categories) <= {a['category_id'] for a in kept if a['image_id'] == image['id']}]
        images = with_both[:wanted]
        order = [image['id'] for image in images]
        kept = sorted((a for a in kept if a['image_id'] in order), key=lambda a: order.index(a['image_id']))
        (folder / split).mkdir(parents=True)
        (folder / 'annotations').mkdir(exist_ok=True)
        for image in images:
            shutil.copyfile(source / names[split][1] / image['file_name'], folder / split / image['file_name'])
        categories_kept = [c for c in content['categories'] if c['id'] in categories]
        (folder / f'annotations/instances_{split}.json').write_text(
            json.dumps({'images': images, 'annotations': kept, 'categories': categories_kept}))


def make_clean_camvid(source: Path, folder: Path) -> None:
    """14 + 4 frames with four classes."""
    table = np.full(256, 255, np.uint8)
    table[list(CAMVID_CLASSES)] = range(len(CAMVID_CLASSES))
    for split, count in (('train', 14), ('val', 4)):
        for kind in ('images', 'annotations'):
            (folder / kind / split).mkdir(parents=True)
        for file in sorted((source / 'annotations' / split).iterdir())[:count]:
            Image.fromarray(table[np.asarray(Image.open(file))]).save(folder / 'annotations' / split / file.name)
            shutil.copyfile(source / f'images/{split}/{file.stem}.jpg', folder / f'images/{split}/{file.stem}.jpg')
    (folder / 'dataset.json').write_text(json.dumps(SEG_INFO))


def make_clean(data: Path, folder: Path) -> None:
    """The three clean sets: `folder`/coco, /pennfudan and /camvid."""
    make_clean_coco(data / 'coco', folder / 'coco', 14, 4, COCO_CATEGORIES, {
        split: (f'annotations/instances_{split}2017.json', f'{split}2017') for split in ('train', 'val')})
    make_clean_coco(data / 'pennfudan', folder / 'pennfudan', 8, 2, (1,), {
        split: (f'annotations/instances_{split}.json', 'images') for split in ('train', 'val')})
    make_clean_camvid(data / 'camvid', folder / 'camvid')
