"""Plants named faults into small copies of real data, for the checker's tests; every fault says what must be found.

`python tests/datasets/plant_faults.py DATA OUT` writes a clean copy and one with all faults of each kind, to look at.
"""
import io
import json
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from clean_copies import SEG_INFO, CocoCopy, LabelCopy, copy_of, make_clean, rewrite, save_image
from PIL import Image


@dataclass(frozen=True)
class Fault:
    """A fault to plant.

    Args:
        code: of the finding that must come of it.
        base: 'coco', 'pennfudan' or 'camvid'.
        plant: changes a copy; is given it and a number that no other fault has; returns text that the finding's file,
            id or value must contain.
        also: other codes that the same change rightly causes.
        alone: whether it would hide other faults.
    """
    code: str
    base: str
    plant: Callable
    also: tuple[str, ...] = ()
    alone: bool = False


# ---- faults of annotations: each changes one annotation and returns how the finding names it

def change(**values) -> Callable:
    """Set keys of an annotation; a function is called with the annotation and its image."""
    def plant(copy: CocoCopy, number: int) -> str:
        annotation = copy.annotation(number)
        image = next(image for image in copy.train['images'] if image['id'] == annotation['image_id'])
        name = annotation['id']
        annotation.update({key: value(annotation, image) if callable(value) else value
                           for key, value in values.items()})
        return f'annotation {name}'
    return plant


def without(key: str) -> Callable:
    def plant(copy: CocoCopy, number: int) -> str:
        del copy.annotation(number)[key]
        return f'annotation {copy.annotation(number)["id"]}'
    return plant


def scaled(polygons: list, factor: float) -> list:
    return [[value * factor for value in polygon] for polygon in polygons]


def repeat_annotation(copy: CocoCopy, number: int, **changes) -> str:
    annotation = {**copy.annotation(number), **changes}
    copy.train['annotations'].append(annotation)
    return f'annotation {copy.annotation(number)["id"]}'


def far_number(copy: CocoCopy, number: int) -> int:
    return 10**12 + number


ANNOTATION_FAULTS = [
    Fault('annotation-incomplete', 'coco', without('bbox')),
    Fault('annotation-incomplete', 'coco', change(bbox=[1, 2, 3])),
    Fault('annotation-incomplete', 'coco', change(category_id='person')),
    Fault('annotation-unknown-image', 'coco', change(image_id=987654321)),
    Fault('annotation-unknown-category', 'coco', change(category_id=77)),
    Fault('box-not-finite', 'coco', change(bbox=[1, 2, float('nan'), 4])),
    Fault('box-not-finite', 'coco', change(bbox=[1, 2, float('inf'), 4])),
    Fault('box-inverted', 'coco', change(bbox=lambda a, i: [a['bbox'][0] + a['bbox'][2], a['bbox'][1], -a['bbox'][2],
                                                            a['bbox'][3]])),
    Fault('box-empty', 'coco', change(bbox=lambda a, i: [*a['bbox'][:3], 0])),
    Fault('box-thin', 'coco', change(bbox=lambda a, i: [*a['bbox'][:3], 0.4], area=1, segmentation=None),
          also=('mask-missing', 'area-mismatch')),
    Fault('box-outside', 'coco', change(bbox=lambda a, i: [*a['bbox'][:2], i['width'], a['bbox'][3]]),
          also=('mask-box-mismatch',)),
    Fault('box-off-image', 'coco', change(bbox=lambda a, i: [i['width'] + 5, *a['bbox'][1:]])),
    Fault('mask-box-mismatch', 'coco', change(bbox=lambda a, i: [0, 0, i['width'], i['height']])),
    Fault('mask-missing', 'coco', change(segmentation=[]), also=('area-mismatch',)),
    Fault('mask-empty', 'coco', change(segmentation=[[5, 5, 9, 9, 13, 13]])),
    Fault('mask-missing', 'coco', without('segmentation'), also=('area-mismatch',)),
    Fault('mask-outside', 'coco', change(segmentation=lambda a, i: [[0, 0, i['width'] + 40, 0, 30, 30]]),
          also=('mask-box-mismatch', 'area-mismatch')),
    Fault('polygon-short', 'coco', change(segmentation=[[5, 5, 9, 9]])),
    Fault('polygon-odd', 'coco', change(segmentation=[[5, 5, 9, 9, 13, 5, 7]])),
    Fault('polygon-not-finite', 'coco', change(segmentation=[[5, 5, 9, 9, 13, float('nan')]])),
    Fault('polygon-not-finite', 'coco', change(segmentation=[[5, 5, 9, 9, 13, None]])),
    Fault('area-mismatch', 'coco', change(area=3e6)),
    Fault('area-mismatch', 'coco', change(area=-1)),
    Fault('annotation-id-duplicate', 'coco', lambda copy, n: repeat_annotation(copy, n),
          also=('annotation-duplicate',)),
    Fault('annotation-duplicate', 'coco', lambda copy, n: repeat_annotation(copy, n, id=far_number(copy, n))),
    Fault('rle-size', 'pennfudan', change(segmentation=lambda a, i: {**a['segmentation'], 'size': [10, 10]})),
    Fault('rle-broken', 'pennfudan', change(
        segmentation=lambda a, i: {**a['segmentation'], 'counts': a['segmentation']['counts'][:-9]})),
    Fault('rle-broken', 'pennfudan', change(
        segmentation=lambda a, i: {'size': [i['height'], i['width']], 'counts': [10, 20, 30]})),
    Fault('rle-broken', 'pennfudan', change(segmentation=lambda a, i: {'size': [i['height'], i['width']]})),
    Fault('mask-empty', 'pennfudan', change(
        segmentation=lambda a, i: {'size': [i['height'], i['width']], 'counts': [i['width'] * i['height']]})),
]


# ---- faults of files, records and categories

def cut_off(file_of: Callable, share: float) -> Callable:
    """Keep a share of the file's bytes."""
    def plant(copy, number: int) -> str:
        file = file_of(copy, number)
        content = file.read_bytes()
        rewrite(file, content[:int(len(content) * share)])
        return str(file)
    return plant


def image_of(copy, number: int) -> Path:
    return copy.image_file(number)


def label_of(copy, number: int) -> Path:
    return copy.label_file(number)


def removed(file_of: Callable) -> Callable:
    def plant(copy, number: int) -> str:
        file = file_of(copy, number)
        file.unlink()
        return str(file)
    return plant


def replaced(file_of: Callable, content: bytes) -> Callable:
    def plant(copy, number: int) -> str:
        rewrite(file_of(copy, number), content)
        return str(file_of(copy, number))
    return plant


def turned(orientation: int) -> Callable:
    def plant(copy: CocoCopy, number: int) -> str:
        image = Image.open(copy.image_file(number))
        image.load()
        exif = image.getexif()
        exif[274] = orientation
        save_image(copy.image_file(number), image, exif=exif, quality=95)
        return str(copy.image_file(number))
    return plant


def other_size_in_json(copy: CocoCopy, number: int) -> str:
    copy.train['images'][number]['width'] += 7
    return str(copy.image_file(number))


def same_picture(split: str) -> Callable:
    """The picture of a validation image once more, in `split`."""
    def plant(copy: CocoCopy, number: int) -> str:
        record = copy.val['images'][0 if split == 'train' else 1]
        name = f'again{number}.jpg'
        shutil.copyfile(copy.folder / 'val' / record['file_name'], copy.folder / split / name)
        getattr(copy, split)['images'].append({**record, 'id': 10**10 + number, 'file_name': name})
        return name if split == 'val' else record['file_name']
    return plant


def same_record(**changes) -> Callable:
    def plant(copy: CocoCopy, number: int) -> str:
        record = {**copy.train['images'][number], **changes}
        copy.train['images'].append(record)
        return f'image {record["id"]}'
    return plant


def outside_record(copy: CocoCopy, number: int) -> str:
    copy.add_image('../../../secret.jpg')
    return 'secret.jpg'


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header announces a size and whose pixels are missing, by the PNG specification."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
            + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b''))


def half_a_record(copy: CocoCopy, number: int) -> str:
    copy.train['images'].append({'id': 10**11, 'file_name': 'half.jpg'})
    return 'half.jpg'


def new_image(listed: bool) -> Callable:
    def plant(copy: CocoCopy, number: int) -> str:
        name = f'new{number}.png'
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        save_image(copy.folder / 'train' / name, Image.fromarray(pixels))
        if listed:
            copy.add_image(name)
        return 'of' if listed else name
    return plant


def category(splits: tuple[str, ...], relabelled: int = 0, says: str | None = None, **values) -> Callable:
    """Add a category to the json files, and give it to some objects."""
    def plant(copy: CocoCopy, number: int) -> str:
        for split in splits:
            getattr(copy, split)['categories'].append(values)
        for annotation in copy.train['annotations'][60:60 + relabelled]:  # beyond those that other faults change
            annotation['category_id'] = values['id']
        return says or values['name']
    return plant


def broken_json(copy: CocoCopy, number: int) -> str:
    copy.save()
    cut_off(lambda *_: copy.json_file('train'), 0.7)(copy, number)
    copy.save = lambda: None
    return 'instances_train.json'


def no_categories(copy: CocoCopy, number: int) -> str:
    del copy.train['categories']
    return 'no categories'


def encoded(pages: int, dtype: type, image_format: str) -> Callable:
    """Replace an image by one of its size, with several pages or more than 8 bits a value; its suffix stays."""
    def plant(copy, number: int) -> str:
        file = copy.image_file(number)
        shape = np.asarray(Image.open(file)).shape[:2]
        images = [Image.fromarray(np.random.default_rng(number).integers(0, 200, shape).astype(dtype))
                  for _ in range(pages)]
        content = io.BytesIO()
        images[0].save(content, image_format, **({'save_all': True, 'append_images': images[1:]} if pages > 1 else {}))
        rewrite(file, content.getvalue())
        return str(file)
    return plant


def dark_beside_range(copy: LabelCopy, number: int) -> str:
    """An image of 16 bits whose values are below the value_range of the data set."""
    info = json.loads((copy.folder / 'dataset.json').read_text())
    rewrite(copy.folder / 'dataset.json', json.dumps({**info, 'value_range': [500, 4000]}).encode())
    return encoded(1, np.uint16, 'PNG')(copy, number)


def boxes_as_corners(copy: CocoCopy, number: int) -> str:
    for annotation in copy.train['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['bbox'] = [x, y, x + w, y + h]
    return 'fit as x1, y1, x2, y2'


def boxes_as_shares(copy: CocoCopy, number: int) -> str:
    sizes = {image['id']: (image['width'], image['height']) for image in copy.train['images']}
    for annotation in copy.train['annotations']:
        annotation['bbox'] = [value / side for value, side in zip(annotation['bbox'], sizes[annotation['image_id']] * 2,
                                                                  strict=True)]
    return 'no number above 1'


FILE_FAULTS = [
    Fault('image-pages', 'coco', encoded(3, np.uint8, 'TIFF'), alone=True),
    Fault('image-depth', 'coco', encoded(1, np.uint16, 'PNG'), alone=True),
    Fault('image-value-range', 'camvid', dark_beside_range),
    Fault('box-corners', 'pennfudan', boxes_as_corners, alone=True, also=('box-outside', 'mask-box-mismatch')),
    Fault('box-shares', 'pennfudan', boxes_as_shares, alone=True, also=('box-thin', 'mask-box-mismatch')),
    Fault('image-missing', 'coco', removed(image_of)),
    Fault('image-empty', 'coco', replaced(image_of, b'')),
    Fault('image-unreadable', 'coco', replaced(image_of, b'this is no picture')),
    Fault('image-truncated', 'coco', cut_off(image_of, 0.6)),
    Fault('image-truncated', 'coco', cut_off(image_of, 0.999)),
    Fault('image-size', 'coco', other_size_in_json),
    Fault('image-rotated', 'coco', turned(3)),
    Fault('image-size', 'coco', turned(6), also=('image-rotated',)),
    Fault('image-duplicate', 'coco', same_picture('val'), also=('image-without-objects',)),
    Fault('image-leak', 'coco', same_picture('train'), also=('image-without-objects',)),
    Fault('image-unlisted', 'coco', new_image(listed=False)),
    Fault('image-without-objects', 'coco', new_image(listed=True)),
    Fault('image-incomplete', 'coco', half_a_record),
    Fault('image-id-duplicate', 'coco', same_record(file_name='other.jpg')),
    Fault('file-name-duplicate', 'coco', same_record(id=10**9), also=('image-without-objects',)),
    Fault('json-broken', 'coco', broken_json, alone=True),
    Fault('json-incomplete', 'coco', no_categories, alone=True,
          also=('annotation-unknown-category', 'split-classes', 'image-without-objects')),
    Fault('category-id-duplicate', 'coco', category(('train', 'val'), id=1, name='human')),
    Fault('category-name-duplicate', 'coco', category(('train', 'val'), id=63, name='person')),
    Fault('split-classes', 'coco', category(('val',), id=64, name='only in val'), also=('class-absent',)),
    Fault('class-absent', 'coco', category(('train', 'val'), id=65, name='ghost')),
    Fault('class-tiny', 'coco', category(('train', 'val'), 3, id=66, name='rare'), also=('class-absent',)),
    Fault('category-ids', 'pennfudan', category(('train', 'val'), id=9, name='far', says='1 to 9'),
          also=('class-absent',)),
    Fault('category-name', 'coco', category(('train', 'val'), id=67, name='a\nb', says='category 67'),
          also=('class-absent',)),
    Fault('image-outside', 'coco', outside_record, also=('image-without-objects',)),
    Fault('image-oversized', 'coco', replaced(lambda copy, number: image_of(copy, 9), png_header(20_000, 20_000))),
]


# ---- faults of label maps

def relabelled(function: Callable) -> Callable:
    """Change the values of a label map."""
    def plant(copy: LabelCopy, number: int) -> str:
        file = copy.label_file(number)
        save_image(file, Image.fromarray(function(np.array(Image.open(file)))), format='PNG')
        return str(file)
    return plant


def with_patch(value: int) -> Callable:
    def function(labels: np.ndarray) -> np.ndarray:
        labels[:5, :5] = value
        return labels
    return relabelled(function)


def lossy(copy: LabelCopy, number: int) -> str:
    file = copy.label_file(number)
    save_image(file, Image.open(file), format='JPEG')
    return str(file)


def orphan(copy: LabelCopy, number: int) -> str:
    shutil.copyfile(copy.label_file(number), copy.folder / 'annotations/train/orphan.png')
    return 'orphan.png'


def all_from_one(copy: LabelCopy, number: int) -> str:
    for file in copy.folder.glob('annotations/*/*.png'):
        labels = np.array(Image.open(file))
        save_image(file, Image.fromarray(np.where(labels == 255, 255, labels + 1).astype(np.uint8)))
    return 'values 1 to 4'


def other_classes(*classes: str) -> Callable:
    def plant(copy: LabelCopy, number: int) -> str:
        splits = {split: {**record, 'pixels': dict.fromkeys(classes, 0)}
                  for split, record in SEG_INFO['splits'].items()}
        rewrite(copy.folder / 'dataset.json', json.dumps({
            **SEG_INFO, 'classes': classes, 'palette': [[0, 0, 0]] * len(classes), 'splits': splits}).encode())
        return classes[-1]
    return plant


def leaked_frame(copy: LabelCopy, number: int) -> str:
    rewrite(copy.image_file(0, 'val'), copy.image_file(number).read_bytes())
    return str(copy.image_file(0, 'val'))


LABEL_FAULTS = [
    Fault('label-missing', 'camvid', removed(label_of)),
    Fault('label-without-image', 'camvid', orphan),
    Fault('label-unreadable', 'camvid', replaced(label_of, b'')),
    Fault('label-unreadable', 'camvid', cut_off(label_of, 0.5)),
    Fault('label-colours', 'camvid', relabelled(lambda labels: np.stack([labels] * 3, -1))),
    Fault('label-lossy', 'camvid', lossy),
    Fault('label-size', 'camvid', relabelled(lambda labels: labels[::2, ::2])),
    Fault('label-value', 'camvid', with_patch(77)),
    Fault('label-value', 'camvid', with_patch(4)),
    Fault('label-all-ignored', 'camvid', relabelled(lambda labels: np.full_like(labels, 255))),
    Fault('image-truncated', 'camvid', cut_off(image_of, 0.6)),
    Fault('image-leak', 'camvid', leaked_frame),
    Fault('labels-from-one', 'camvid', all_from_one, alone=True, also=('label-value', 'class-absent')),
    Fault('void-class', 'camvid', other_classes('Sky', 'Building', 'Road', 'void'), alone=True),
    Fault('class-absent', 'camvid', other_classes('Sky', 'Building', 'Road', 'Car', 'Boat'), alone=True),
]
FAULTS = [*ANNOTATION_FAULTS, *FILE_FAULTS, *LABEL_FAULTS]


def plant_all(copy, base: str) -> list[tuple[Fault, str]]:
    """Plant every fault of a base that does not hide others; returns what must be found."""
    planted = []
    for kind in (ANNOTATION_FAULTS, FILE_FAULTS, LABEL_FAULTS):
        chosen = [fault for fault in kind if fault.base == base and not fault.alone]
        planted += [(fault, fault.plant(copy, number)) for number, fault in enumerate(chosen)]
    copy.save()
    return planted


if __name__ == '__main__':
    source, out = map(Path, sys.argv[1:3])
    make_clean(source, out / 'clean')
    for name in ('coco', 'pennfudan', 'camvid'):
        for found, where in plant_all(copy_of(out / 'clean' / name, out / 'faulty' / name), name):
            print(f'{name}: {found.code}: {where}')
