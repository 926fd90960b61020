"""CVAT for images 1.1: one XML file with boxes, polygons, ellipses and masks. Its COCO export is read by `coco`."""
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ...errors import UserError
from .objects import (
    box_annotation,
    check_image_size,
    ellipse,
    find_image,
    mask_annotation,
    pasted,
    polygon_annotation,
    turned_box,
)
from .pairs import SPLIT_NAMES
from .source import Options, Sample, Skipped, Source, numbered
from .xml_files import first_tag, number, read_xml

NO_AREA = ('polyline', 'points', 'tag', 'skeleton', 'cuboid')


def detect(root: Path) -> bool:
    """An XML file whose outermost element is `annotations`."""
    return bool(_files(root))


def open_source(root: Path, options: Options) -> Source:
    """Labels in the order of the task; images below the XML's folder, with the folders of their names.

    Raises:
        UserError: no such file, tracks of a video, or no labels.
    """
    files = _files(root)
    if not files:
        raise UserError(f'{root} has no XML with <annotations>: export the task as "CVAT for images 1.1"')
    folder, skipped, samples, labels = root if root.is_dir() else root.parent, Skipped(), [], {}
    documents = [(file, read_xml(file)) for file in files]
    for file, document in documents:
        if document.find('track') is not None:
            raise UserError(f'{file} has tracks of a video: export the task as "CVAT for images 1.1"')
        for label in document.iterfind('.//labels/label'):
            labels[(label.findtext('name') or '').strip()] = label.findtext('color')
        for shape in document.iterfind('image/*[@label]'):
            labels.setdefault(shape.get('label'), None)
    if not labels:
        raise UserError(f'{files[0]} has no label and no object')
    names = list(labels)
    for file, document in documents:
        for element in document.iterfind('image'):
            image = find_image(element.get('name') or '', Path(element.get('name') or '').stem, [
                place for place in (*(folder / name for name in options.images), file.parent / 'images', file.parent,
                                    folder / 'images', folder) if place.is_dir()], folder)
            split = SPLIT_NAMES.get((element.get('subset') or '').lower())
            if split == 'test':
                skipped.add('image of a test split', image)
            else:
                samples.append(Sample(image, partial(_annotations, element, image, names), split))
    return Source('det', numbered(names), samples, _palette(list(labels.values())), skipped)


def _files(root: Path) -> list[Path]:
    candidates = [root] if root.is_file() and root.suffix == '.xml' else sorted(root.glob('*.xml'))[:20]
    return [file for file in candidates if first_tag(file) == 'annotations']


def _palette(colours: list[str | None]) -> list[list[int]] | None:
    try:
        return [list(bytes.fromhex(colour.removeprefix('#'))[:3]) for colour in colours]
    except (AttributeError, ValueError):
        return None


def _annotations(element: Element, image: Path, names: list[str], skip) -> list[dict]:
    try:
        stated = number(element.get('width')), number(element.get('height'))
    except ValueError:
        stated = 0, 0  # the file's size counts
    size, annotations = check_image_size(image, *stated, len(element)), []
    for shape in element:
        if shape.get('label') is None:
            continue
        try:
            annotations.append(_annotation(shape, names.index(shape.get('label')) + 1, size))
        except ValueError as error:
            skip(str(error), f'{image}, {shape.get("label")}')
    return annotations


def _annotation(shape: Element, category: int, size: tuple[int, int]) -> dict:
    if shape.tag in NO_AREA:
        raise ValueError(f'{shape.tag}, which has no area')
    if shape.tag == 'box':
        left, top, right, bottom = (number(shape.get(key)) for key in ('xtl', 'ytl', 'xbr', 'ybr'))
        degrees = number(shape.get('rotation') or '0')
        if degrees:
            return polygon_annotation(category, [turned_box(left, top, right - left, bottom - top, degrees)], size)
        return box_annotation(category, left, top, right - left, bottom - top)
    if shape.tag == 'polygon':
        return polygon_annotation(category, [[number(value) for point in (shape.get('points') or '').split(';') if point
                                              for value in point.split(',')]], size)
    if shape.tag == 'ellipse':
        return polygon_annotation(category, [ellipse(*(number(shape.get(key)) for key in ('cx', 'cy', 'rx', 'ry')))],
                                  size)
    if shape.tag == 'mask':
        return mask_annotation(category, _mask(shape, size))
    raise ValueError(f'shape of the unknown kind {shape.tag}')


def _mask(shape: Element, size: tuple[int, int]) -> np.ndarray:
    """Run lengths within a part of the image, row by row, starting with background."""
    left, top, width, height = (int(number(shape.get(key))) for key in ('left', 'top', 'width', 'height'))
    counts = np.array([int(number(count)) for count in (shape.get('rle') or '').split(',')])
    if not (0 < width <= size[0] and 0 < height <= size[1]) or (counts < 0).any() or counts.sum() != width * height:
        raise ValueError('mask whose run lengths do not fit its size')
    part = np.repeat(np.arange(len(counts)) % 2, counts).reshape(height, width)
    return pasted(part, left, top, size)
