"""Pascal VOC: an XML file per image with boxes, as LabelImg, CVAT, Roboflow and the VOC data sets have it."""
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from ...errors import UserError
from .objects import box_annotation, check_image_size, class_names, find_image, image_places, polygon_annotation
from .pairs import SPLIT_NAMES, split_of
from .source import Options, Sample, Skipped, Source, numbered
from .xml_files import first_tag, number, read_xml

FLAG = re.compile(r'\s+-?[01]$')  # behind a name in lists of one class


@dataclass(frozen=True)
class VocObject:
    """Name, corners as written (x1, y1, x2, y2), polygon or None, and whether it is marked as difficult."""
    name: str
    corners: tuple[float, float, float, float]
    polygon: list[float] | None
    difficult: bool


def detect(root: Path) -> bool:
    """XML files whose outermost element is `annotation`."""
    return root.is_dir() and any(first_tag(file) == 'annotation' for file in sorted(root.rglob('*.xml'))[:20])


def open_source(root: Path, options: Options) -> Source:
    """Corners count from 1 and include the last pixel, as in VOC; from 0 without it, where any of them is below 1.

    Raises:
        UserError: no annotation file that can be read.
    """
    skipped, listed = Skipped(), _listed_splits(root)
    read: list[tuple[Path, str, tuple[float, float], list[VocObject]]] = []
    for file in sorted(root.rglob('*.xml')):
        try:
            element = read_xml(file)
            if element.tag == 'annotation':
                size = tuple(number(element.findtext(f'size/{key}') or '0') for key in ('width', 'height'))
                read.append((file, (element.findtext('filename') or '').strip(), size,
                             list(_objects(element, file, skipped.add))))
        except (UserError, ValueError) as error:
            skipped.add('annotation file that cannot be read', error if isinstance(error, UserError) else file)
    if not read:
        first = next(iter(skipped.reasons.values()), [0, 'it has no XML with <annotation>'])[1]
        raise UserError(f'{root} has no Pascal VOC annotation that can be read: {first}')
    names = class_names((found.name for *_, objects in read for found in objects), options, root)
    corners = [value for *_, objects in read for found in objects for value in found.corners[:2]]
    offset = 1 if min(corners, default=1) >= 1 else 0
    samples = []
    for file, name, size, objects in read:
        split = listed.get(file.stem, split_of(file, root))
        image = find_image(name, file.stem, image_places(file, options, root, 'JPEGImages', 'images'), root)
        if split == 'test':
            skipped.add('image of a test split', image)
            continue
        samples.append(Sample(image, partial(_annotations, image, size, objects, names, offset), split))
    difficult = sum(found.difficult for *_, objects in read for found in objects)
    notes = [f'corners are read as {"counted from 1, the last pixel included" if offset else "counted from 0"}'] + (
        [f'{difficult} objects are marked as difficult; they are trained on like the others'] if difficult else [])
    return Source('det', numbered(names), samples, skipped=skipped, notes=notes)


def _listed_splits(root: Path) -> dict[str, str]:
    """Stem -> split, from ImageSets/Main/train.txt and the like."""
    splits = {}
    for split in ('test', 'val', 'train'):
        for file in (root / f'ImageSets/{part}/{split}.txt' for part in ('Main', '.')):
            if file.is_file():
                lines = file.read_text(encoding='utf-8-sig', errors='replace').splitlines()
                splits.update({FLAG.sub('', line.strip()): SPLIT_NAMES[split] for line in lines if line.strip()})
    return splits


def _objects(element: Element, file: Path, skip) -> Iterator[VocObject]:
    for found in element.iterfind('object'):
        name = (found.findtext('name') or '').strip()
        try:
            corners = tuple(number(found.findtext(f'bndbox/{key}')) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
            points = found.find('polygon')
            polygon = None if points is None else [
                number(points.findtext(f'{axis}{place}')) for place in range(1, len(points) // 2 + 1) for axis in 'xy']
        except ValueError:
            skip('object without four numbers as its box', file)
            continue
        yield VocObject(name, corners, polygon, found.findtext('difficult', '0').strip() == '1')


def _annotations(image: Path, size: tuple, objects: list[VocObject], names: list[str], offset: int, skip) -> list[dict]:
    size = check_image_size(image, *size, len(objects))
    annotations = []
    for found in objects:
        left, top, right, bottom = found.corners
        more = {'difficult': 1} if found.difficult else {}
        try:
            category = names.index(found.name) + 1
            annotations.append(
                polygon_annotation(category, [found.polygon], size, **more) if found.polygon else
                box_annotation(category, left - offset, top - offset, right - left + offset, bottom - top + offset,
                               **more))
        except ValueError as error:
            skip('object of a class that is not listed' if found.name not in names else str(error),
                 f'{image}, {found.name}')
    return annotations
