"""YOLO: a text file per image with `class cx cy w h` or `class x1 y1 x2 y2 ...`, relative to the image's size."""
import math
import re
from functools import partial
from pathlib import Path
from reprlib import repr as short_repr

from pycocotools import mask as coco_mask

from ...errors import UserError, few
from ...utils.images import image_size
from .class_files import find_class_file, read_classes
from .pairs import image_files, split_of
from .source import Options, Sample, Skipped, Source, numbered
from .yolo_yaml import keypoint_numbers, read_yaml, yaml_file

NUMBER = re.compile(r'[-+0-9.eE]+')
SLACK = 0.01  # of the image's side: points may lie so far outside by rounding


def detect(root: Path) -> bool:
    """A data.yaml with names, or images with a text file of numbers each."""
    if root.is_file():
        return root.suffix in ('.yaml', '.yml')
    return yaml_file(root) is not None or _has_label_texts(root)


def open_source(root: Path, options: Options) -> Source:
    """Images without a text file, or with an empty one, have no objects, as in YOLO itself.

    Raises:
        UserError: no class list, or no images.
    """
    file = root if root.is_file() else yaml_file(root)
    folder = root if root.is_dir() else root.parent
    skipped = Skipped()
    if file is not None:
        names, listed = read_yaml(file, folder)
        keypoints = keypoint_numbers(file)
    else:
        keypoints = 0
        names, listed = [entry.name for entry in read_classes(options.classes, folder)], []
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        numbers = [number for number, name in enumerate(names) if name == twice]
        raise UserError(f'{options.classes or file or find_class_file(folder)} has the class {short_repr(twice)} '
                        f'{len(numbers)} times (ids {few(numbers)}): give each id a name of its own')
    if not listed:
        listed = [(image, split_of(image, folder)) for image in image_files(folder)]
    samples = []
    for image, split in listed:
        if split == 'test':
            skipped.add('image of a test split', image)
            continue
        samples.append(Sample(image, partial(_annotations, image, len(names), keypoints), split))
    if not samples:
        raise UserError(f'{folder} has no images: expected images/train and images/val, or the paths in data.yaml')
    labelled = sum(label_file(sample.image).is_file() for sample in samples)
    if not labelled:
        raise UserError(f'no image of {folder} has a label file: expected {label_file(samples[0].image)} for '
                        f'{samples[0].image}')
    notes = [f'{len(samples) - labelled} images have no text file: they count as images without objects'] \
        if labelled < len(samples) else []
    if keypoints:
        notes.append(f'{file.name} has a kpt_shape: boxes are read, keypoints are left out')
    return Source('det', numbered(names), samples, skipped=skipped, notes=notes)


def label_file(image: Path) -> Path:
    """The label file of an image, as YOLO finds it: the last `images` of its path replaced by `labels`."""
    parts = list(image.parts)
    if 'images' in parts:
        parts[len(parts) - 1 - parts[::-1].index('images')] = 'labels'
    return Path(*parts).with_suffix('.txt')


def _annotations(image: Path, classes: int, keypoints: int, skip) -> list[dict]:
    file = label_file(image)
    if not file.is_file():
        return []
    width, height = image_size(image)
    found = []
    for number, line in enumerate(file.read_text(encoding='utf-8-sig', errors='replace').splitlines(), 1):
        if line.strip():
            try:
                found.append(_annotation(line.split(), classes, keypoints, width, height))
            except ValueError as error:
                skip(str(error), f'{file}:{number}')
    return found


def _annotation(words: list[str], classes: int, keypoints: int, width: int, height: int) -> dict:
    try:
        label, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError('line with something that is no number') from None
    if not (0 <= label < classes and label.is_integer()):
        raise ValueError(f'class {label:g}, expected 0 to {classes - 1}')
    label = int(label)
    if keypoints and len(values) == 4 + keypoints:
        values = values[:4]
    if keypoints and len(values) != 4:
        raise ValueError(f'line with {len(values)} numbers after the class, expected 4 of a box and {keypoints} of '
                         'keypoints')
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(f'line with {len(values)} numbers after the class, expected 4 or an even number from 6')
    if not all(math.isfinite(value) for value in values):
        raise ValueError('line with a number that is not finite')
    if any(not -SLACK <= value <= 1 + SLACK for value in values):
        raise ValueError('coordinate outside 0 to 1')
    if len(values) == 4:
        x, y, w, h = values
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        return {'category_id': label + 1, 'bbox': box, 'area': box[2] * box[3], 'iscrowd': 0}
    polygon = [value * (height if index % 2 else width) for index, value in enumerate(values)]
    xs, ys = polygon[::2], polygon[1::2]
    return {'category_id': label + 1, 'bbox': [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
            'area': int(coco_mask.area(coco_mask.frPyObjects([polygon], height, width))[0]), 'iscrowd': 0,
            'segmentation': [polygon]}


def _has_label_texts(root: Path) -> bool:
    for image in image_files(root)[:20]:
        file = label_file(image)
        if file.is_file():
            with file.open(encoding='utf-8-sig', errors='replace') as text:
                words = text.readline().split()
            if not words or (len(words) >= 5 and all(NUMBER.fullmatch(word) for word in words)):
                return True
    return False
