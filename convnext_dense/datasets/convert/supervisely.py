"""Supervisely: meta.json, and per data set `img/` and `ann/` with a json per image."""
import base64
import binascii
import io
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from ...errors import UserError
from ...utils.images import max_pixels, open_image
from ..json_values import is_number
from .objects import (
    box_annotation,
    check_image_size,
    find_image,
    mask_annotation,
    pasted,
    polygon_annotation,
    read_json,
)
from .pairs import split_of
from .source import Options, Sample, Skipped, Source, numbered


def detect(root: Path) -> bool:
    """meta.json, and a folder ann/."""
    return (root / 'meta.json').is_file() and bool(_annotation_files(root))


def open_source(root: Path, options: Options) -> Source:
    """Classes in the order of meta.json; the right and lower edge of a rectangle belong to it.

    Raises:
        UserError: no classes, or no annotation.
    """
    classes = read_json(root / 'meta.json').get('classes')
    if not isinstance(classes, list) or not classes or not all(
            isinstance(entry, dict) and isinstance(entry.get('title'), str) for entry in classes):
        raise UserError(f'{root / "meta.json"} has no classes: expected a list of objects with a title')
    names, skipped, samples = [entry['title'] for entry in classes], Skipped(), []
    for file in _annotation_files(root):
        name = file.name.removesuffix('.json')
        image = find_image(name, Path(name).stem, [file.parent.parent / 'img'], root)
        split = split_of(file.parent, root)
        if split == 'test':
            skipped.add('image of a test split', image)
        else:
            samples.append(Sample(image, partial(_annotations, file, image, names), split))
    try:
        palette = [list(bytes.fromhex(entry['color'].removeprefix('#'))[:3]) for entry in classes]
    except (KeyError, AttributeError, ValueError):
        palette = None
    return Source('det', numbered(names), samples, palette, skipped)


def _annotation_files(root: Path) -> list[Path]:
    return sorted(file for folder in (root, *root.glob('*')) for file in (folder / 'ann').glob('*.json'))


def _annotations(file: Path, image: Path, names: list[str], skip) -> list[dict]:
    content = read_json(file)
    size = content.get('size') if isinstance(content.get('size'), dict) else {}
    objects = content.get('objects') if isinstance(content.get('objects'), list) else []
    width, height = (size.get(key) if is_number(size.get(key)) else 0 for key in ('width', 'height'))
    size = check_image_size(image, width, height, len(objects))
    annotations = []
    for found in objects:
        name = found.get('classTitle') if isinstance(found, dict) else None
        try:
            if name not in names:
                raise ValueError('object of a class that meta.json lacks')
            annotations.append(_annotation(found, names.index(name) + 1, size))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            skip(str(error) if isinstance(error, ValueError) else 'object that is not as Supervisely writes it',
                 f'{file}, {name}')
    return annotations


def _annotation(found: dict, category: int, size: tuple[int, int]) -> dict:
    kind = found.get('geometryType')
    if kind == 'bitmap':
        left, top = found['bitmap']['origin']
        return mask_annotation(category, pasted(_bitmap(found['bitmap']['data']), int(left), int(top), size))
    if kind not in ('rectangle', 'polygon'):
        raise ValueError(f'object of the kind {kind}, which has no area')
    outer, inner = found['points']['exterior'], found['points'].get('interior') or []
    if kind == 'rectangle':
        (left, top), (right, bottom) = np.min(outer, 0).tolist(), np.max(outer, 0).tolist()
        return box_annotation(category, left, top, right - left + 1, bottom - top + 1)
    polygon = polygon_annotation(category, [_flat(outer)], size)
    if not inner:
        return polygon
    masks = [coco_mask.decode(coco_mask.frPyObjects([_flat(part)], size[1], size[0]))[..., 0]
             for part in (outer, *inner)]
    return mask_annotation(category, masks[0] > np.max(masks[1:], 0))


def _flat(points: list) -> list[float]:
    return [float(value) for point in points for value in point]


def _bitmap(text: str) -> np.ndarray:
    """A mask as a compressed PNG in text; never more than the limit of pixels is unpacked."""
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(text, validate=True), max_pixels())
        with open_image(io.BytesIO(content), 'the mask') as opened:
            values = np.asarray(opened)
    except (OSError, SyntaxError, binascii.Error, zlib.error, TypeError) as error:
        raise ValueError('mask that is no PNG') from error
    return values if values.ndim == 2 else values[..., -1]  # alpha
