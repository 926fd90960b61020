"""Cityscapes: `leftImg8bit/` with `gtFine/` (or `gtCoarse/`), label ids for segmentation, instance ids for detection.

The table of labels is that of the data set's own scripts (cityscapesscripts/helpers/labels.py).
"""
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...visualization.draw import IGNORED
from .objects import mask_annotation
from .pairs import image_files, read_ids
from .source import Options, Sample, Skipped, Source, numbered

# id: (name, colour, whether it has instances) of the 19 classes that are trained on, in the order of their train ids
CLASSES = {
    7: ('road', (128, 64, 128), False), 8: ('sidewalk', (244, 35, 232), False), 11: ('building', (70, 70, 70), False),
    12: ('wall', (102, 102, 156), False), 13: ('fence', (190, 153, 153), False), 17: ('pole', (153, 153, 153), False),
    19: ('traffic light', (250, 170, 30), False), 20: ('traffic sign', (220, 220, 0), False),
    21: ('vegetation', (107, 142, 35), False), 22: ('terrain', (152, 251, 152), False),
    23: ('sky', (70, 130, 180), False),
    24: ('person', (220, 20, 60), True), 25: ('rider', (255, 0, 0), True), 26: ('car', (0, 0, 142), True),
    27: ('truck', (0, 0, 70), True), 28: ('bus', (0, 60, 100), True), 31: ('train', (0, 80, 100), True),
    32: ('motorcycle', (0, 0, 230), True), 33: ('bicycle', (119, 11, 32), True)}
INSTANCES = {number: entry for number, entry in CLASSES.items() if entry[2]}
PER_CLASS = 1000  # instance ids are class * 1000 + number; ids below are of groups and of classes without instances


def detect(root: Path) -> bool:
    """The folder leftImg8bit, and label ids."""
    return _has(root, 'labelIds')


def open_source(root: Path, options: Options) -> Source:
    """The 19 classes that are evaluated; the other labels are ignored (255).

    Raises:
        UserError: no label maps.
    """
    table = np.full(256, IGNORED, np.uint8)
    table[list(CLASSES)] = range(len(CLASSES))
    return _source(root, 'seg', CLASSES, 'labelIds', lambda file, skip: table[_ids(file, 256)])


def detect_instances(root: Path) -> bool:
    """The folder leftImg8bit, and instance ids."""
    return _has(root, 'instanceIds')


def open_instances(root: Path, options: Options) -> Source:
    """The eight classes with instances; a group that was not divided is a crowd.

    Raises:
        UserError: no instance ids.
    """
    return _source(root, 'det', INSTANCES, 'instanceIds', _objects)


def _has(root: Path, kind: str) -> bool:
    return (root / 'leftImg8bit').is_dir() and next(root.glob(f'gt*/*/*/*_{kind}.png'), None) is not None


def _source(root: Path, task: str, classes: dict, kind: str, load: Callable) -> Source:
    skipped, samples = Skipped(), []
    for image in image_files(root / 'leftImg8bit'):
        place = image.relative_to(root / 'leftImg8bit').parent
        stem = image.stem.removesuffix('_leftImg8bit')
        labels = [file for annotations in ('gtFine', 'gtCoarse')
                  if (file := root / annotations / place / f'{stem}_{annotations}_{kind}.png').is_file()]
        split = place.parts[0] if place.parts else ''
        if split.startswith('test'):
            skipped.add('image of a test split', image)
        elif not labels:
            skipped.add('image without a mask', image)
        else:
            samples.append(Sample(image, partial(load, labels[0]), {'val': 'val'}.get(split, 'train')))
    if not samples:
        raise UserError(f'{root} has no *_{kind}.png for an image in leftImg8bit/: expected '
                        f'gtFine/train/CITY/NAME_gtFine_{kind}.png')
    names = [name for name, _, _ in classes.values()]
    palette = [list(colour) for _, colour, _ in classes.values()]
    return Source(task, numbered(names), samples, palette, skipped)


def _ids(file: Path, count: int) -> np.ndarray:
    ids = read_ids(file)
    if ids.max(initial=0) >= count:
        raise UserError(f'{file} has the value {int(ids.max())}, expected label ids below {count}')
    return ids


def _objects(file: Path, skip) -> list[dict]:
    ids, found = read_ids(file), []
    order = list(INSTANCES)
    for value in np.unique(ids).tolist():
        label = value // PER_CLASS if value >= PER_CLASS else value
        if label in INSTANCES:
            found.append({**mask_annotation(order.index(label) + 1, ids == value), 'iscrowd': int(value < PER_CLASS)})
    return found
