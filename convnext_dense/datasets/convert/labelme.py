"""LabelMe: a json file per image with polygons, rectangles, circles and masks."""
import base64
import binascii
import io
from functools import partial
from pathlib import Path
from reprlib import repr as short_repr

import numpy as np

from ...errors import UserError
from ...utils.images import open_image
from ..json_stream import has_keys
from ..json_values import is_number
from .objects import (
    box_annotation,
    check_image_size,
    class_names,
    ellipse,
    find_image,
    image_places,
    mask_annotation,
    pasted,
    polygon_annotation,
    read_json,
)
from .pairs import split_of
from .source import Options, Sample, Skipped, Source, numbered


def detect(root: Path) -> bool:
    """Json files with shapes and an imagePath."""
    return root.is_dir() and any(has_keys(file, 'shapes', 'imagePath') for file in sorted(root.rglob('*.json'))[:20])


def open_source(root: Path, options: Options) -> Source:
    """Shapes of one label and group_id are one object. Points and lines have no area and are left out.

    Raises:
        UserError: no annotation file that can be read.
    """
    skipped, read, found = Skipped(), [], []
    for file in sorted(root.rglob('*.json')):
        try:
            content = read_json(file)
        except UserError as error:
            skipped.add('annotation file that cannot be read', error)
            continue
        if 'shapes' in content and 'imagePath' in content:
            read.append((file, str(content['imagePath'] or '')))
            found += [shape['label'] for shape in _shapes(content, lambda *_: None, file)]
    if not read:
        first = next(iter(skipped.reasons.values()), [0, 'it has no json with shapes and imagePath'])[1]
        raise UserError(f'{root} has no LabelMe annotation that can be read: {first}')
    names, samples = class_names(found, options, root), []
    for file, name in read:
        image = find_image(name, file.stem, image_places(file, options, root, 'images', 'imgs'), root)
        split = split_of(file, root)
        if split == 'test':
            skipped.add('image of a test split', image)
        else:
            samples.append(Sample(image, partial(_annotations, file, image, names), split))
    return Source('det', numbered(names), samples, skipped=skipped)


def _shapes(content: dict, skip, file: Path) -> list[dict]:
    shapes = content['shapes'] if isinstance(content['shapes'], list) else []
    good = [shape for shape in shapes if isinstance(shape, dict) and isinstance(shape.get('label'), str)
            and _are_points(shape.get('points'))]
    if len(good) < len(shapes):
        skip('shape without a label and points', file, len(shapes) - len(good))
    return good


def _are_points(points) -> bool:
    return isinstance(points, list) and all(
        isinstance(point, list) and len(point) == 2 and all(map(is_number, point)) for point in points)


def _annotations(file: Path, image: Path, names: list[str], skip) -> list[dict]:
    content = read_json(file)
    width, height = (value if is_number(value) else 0 for value in (content.get('imageWidth'),
                                                                    content.get('imageHeight')))
    size = check_image_size(image, width, height, len(content['shapes']))
    groups: dict[object, list[dict]] = {}
    for number, shape in enumerate(_shapes(content, skip, file)):
        group = shape.get('group_id')
        groups.setdefault((shape['label'], group) if isinstance(group, int) else number, []).append(shape)
    annotations = []
    for shapes in groups.values():
        label = shapes[0]['label']
        try:
            if label not in names:
                raise ValueError('object of a class that is not listed')
            annotations.append(_annotation(shapes, names.index(label) + 1, size))
        except ValueError as error:
            skip(str(error), f'{file}, {label}')
    return annotations


def _annotation(shapes: list[dict], category: int, size: tuple[int, int]) -> dict:
    """One object; a lone rectangle is a box, as part of a group it is a polygon."""
    kinds = {shape.get('shape_type') or 'polygon' for shape in shapes}
    if kinds == {'mask'}:
        masks = [_mask(shape, size) for shape in shapes]
        return mask_annotation(category, np.logical_or.reduce(masks))
    if kinds == {'rectangle'} and len(shapes) == 1:
        (left, top), (right, bottom) = _corners(shapes[0])
        return box_annotation(category, left, top, right - left, bottom - top)
    return polygon_annotation(category, [_polygon(shape) for shape in shapes], size)


def _corners(shape: dict) -> tuple[list[float], list[float]]:
    if len(shape['points']) < 2:
        raise ValueError('rectangle with fewer than two points')
    points = np.array(shape['points'], float)
    return points.min(0).tolist(), points.max(0).tolist()


def _polygon(shape: dict) -> list[float]:
    kind, points = shape.get('shape_type') or 'polygon', shape['points']
    if kind == 'polygon':
        return [float(value) for point in points for value in point]
    if kind == 'rectangle':
        (left, top), (right, bottom) = _corners(shape)
        return [left, top, right, top, right, bottom, left, bottom]
    if kind == 'circle' and len(points) == 2:
        radius = float(np.hypot(*np.subtract(*points)))
        return ellipse(*points[0], radius, radius)
    raise ValueError(f'shape without an area ({short_repr(kind)})')


def _mask(shape: dict, size: tuple[int, int]) -> np.ndarray:
    """LabelMe's mask: a PNG as text, whose first pixel lies at the first point."""
    try:
        with open_image(io.BytesIO(base64.b64decode(shape.get('mask') or '', validate=True)), 'the mask') as opened:
            part = np.asarray(opened)
    except (OSError, SyntaxError, binascii.Error, TypeError) as error:
        raise ValueError('mask that is no PNG') from error
    if part.ndim != 2 or not shape['points']:
        raise ValueError('mask with several channels or without a point')
    left, top = (round(value) for value in shape['points'][0])
    return pasted(part, left, top, size)
