"""YOLO: a text file per image with `class cx cy w h` or `class x1 y1 x2 y2 ...`, relative to the image's size."""
import math
from functools import partial
from pathlib import Path

import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from ...errors import UserError
from .class_files import find_class_file, read_classes
from .pairs import SPLIT_NAMES, image_files, split_of
from .source import Options, Sample, Skipped, Source, numbered

TASK = 'det'
SLACK = 0.01  # of the image's side: how far rounding may put a point outside


def detect(root: Path) -> bool:
    """A data.yaml with names, or a class list beside `labels/*.txt`."""
    if root.is_file():
        return root.suffix in ('.yaml', '.yml')
    return _yaml_file(root) is not None or (find_class_file(root) is not None and _has_label_texts(root))


def open_source(root: Path, options: Options) -> Source:
    """Images without a text file, or with an empty one, have no objects, as in YOLO itself.

    Raises:
        UserError: no class list, or no images.
    """
    file = root if root.is_file() else _yaml_file(root)
    folder = root if root.is_dir() else root.parent
    skipped = Skipped()
    if file is not None:
        names, listed = _read_yaml(file, folder)
    else:
        names, listed = [entry.name for entry in read_classes(options.classes, folder)], []
    if not listed:
        listed = [(image, split_of(image, folder)) for image in image_files(folder)]
    samples = []
    for image, split in listed:
        if split == 'test':
            skipped.add('image of a test split', image)
            continue
        samples.append(Sample(image, partial(_annotations, image, len(names)), split))
    if not samples:
        raise UserError(f'{folder} has no images: expected images/train and images/val, or the paths in data.yaml')
    labelled = sum(label_file(sample.image).is_file() for sample in samples)
    if not labelled:
        raise UserError(f'no image of {folder} has a label file: expected {label_file(samples[0].image)} for '
                        f'{samples[0].image}')
    notes = [f'{len(samples) - labelled} images have no text file: they count as images without objects'] \
        if labelled < len(samples) else []
    return Source('det', numbered(names), samples, skipped=skipped, notes=notes)


def label_file(image: Path) -> Path:
    """Where YOLO looks for an image's objects: `labels` in the place of the last `images` of its path."""
    parts = list(image.parts)
    if 'images' in parts:
        parts[len(parts) - 1 - parts[::-1].index('images')] = 'labels'
    return Path(*parts).with_suffix('.txt')


def _annotations(image: Path, classes: int, skip) -> list[dict]:
    file = label_file(image)
    if not file.is_file():
        return []
    with Image.open(image) as opened:
        width, height = opened.size
    found = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if line.strip():
            try:
                found.append(_annotation(line.split(), classes, width, height))
            except ValueError as error:
                skip(str(error), f'{file}:{number}')
    return found


def _annotation(words: list[str], classes: int, width: int, height: int) -> dict:
    try:
        label, values = int(float(words[0])), [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError('line with something that is no number') from None
    if not 0 <= label < classes:
        raise ValueError(f'class {label}, expected 0 to {classes - 1}')
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


def _yaml_file(root: Path) -> Path | None:
    for file in sorted([*root.glob('*.yaml'), *root.glob('*.yml')]):
        try:
            if 'names' in (yaml.safe_load(file.read_text()) or {}):
                return file
        except (yaml.YAMLError, TypeError, UnicodeDecodeError):
            continue
    return None


def _has_label_texts(root: Path) -> bool:
    return any(label_file(image).is_file() for image in image_files(root)[:20])


def _read_yaml(file: Path, folder: Path) -> tuple[list[str], list[tuple[Path, str]]]:
    try:
        content = yaml.safe_load(file.read_text())
        names = content['names']
        names = [names[index] for index in sorted(names)] if isinstance(names, dict) else list(names)
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f'{file} could not be read as a YOLO data.yaml ({error}): expected names, train and '
                        'val') from None
    listed = []
    for key, split in SPLIT_NAMES.items():
        entries = content.get(key) or []
        for entry in [entries] if isinstance(entries, str) else entries:
            listed += [(image, split) for image in _listed_images(file, folder, content.get('path') or '', entry)]
    return [str(name) for name in names], listed


def _listed_images(file: Path, folder: Path, base: str, entry: str) -> list[Path]:
    """Images of a folder or of a text file that lists them; `path` of the yaml may be absent, relative or stale."""
    for place in (folder / base / entry, folder / entry, folder / entry.removeprefix('../'), Path(base) / entry):
        if place.is_dir():
            return image_files(place)
        if place.suffix == '.txt' and place.is_file():
            return [place.parent / line.strip() for line in place.read_text().splitlines() if line.strip()]
    raise UserError(f'{file}: {entry} is neither a folder nor a text file below {folder}: correct its path')
