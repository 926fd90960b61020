"""LabelMe: a json file beside every image; the way to correct predictions by hand."""
import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ..convert.planning import PlannedSample
from ..convert.source import Source
from ..json_values import is_number
from .images import objects_of, placed
from .outlines import decode, polygons_of

VERSION = '5.4.1'  # of LabelMe's files, which has masks


def write(root: Path, source: Source, planned: list[PlannedSample], link: str) -> None:
    """Polygons, several of one object in a group; a mask with holes as a mask, an object without one as a rectangle."""
    names = {category['id']: category['name'] for category in source.categories}
    for entry, image in placed(planned, lambda split: root if source.single else root / split, link):
        shapes = []
        for number, annotation in enumerate(objects_of(entry, source), 1):
            try:
                shapes += _shapes(annotation, names[annotation['category_id']], number, entry.size)
            except ValueError as error:
                source.skipped.add(str(error), entry.sample.image)
        content = {'version': VERSION, 'flags': {}, 'shapes': shapes, 'imagePath': image.name, 'imageData': None,
                   'imageHeight': entry.size[1], 'imageWidth': entry.size[0]}
        image.with_suffix('.json').write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding='utf-8')
    (root / 'labels.txt').write_text(''.join(f'{name}\n' for name in source.classes), encoding='utf-8')


def _shapes(annotation: dict, name: str, group: int, size: tuple[int, int]) -> list[dict]:
    score = annotation.get('score')
    common = {'label': name, 'group_id': None, 'flags': {},
              'description': f'score {score:.3f}' if is_number(score) else ''}
    if not annotation.get('segmentation'):
        x, y, w, h = annotation['bbox']
        return [{**common, 'shape_type': 'rectangle', 'points': [[x, y], [x + w, y + h]]}]
    polygons, has_holes = polygons_of(annotation['segmentation'], size)
    if has_holes:
        return [{**common, **_mask(decode(annotation['segmentation'], size))}]
    if len(polygons) > 1:
        common['group_id'] = group
    return [{**common, 'shape_type': 'polygon', 'points': np.reshape(polygon, (-1, 2)).tolist()}
            for polygon in polygons]


def _mask(mask: np.ndarray) -> dict:
    """A PNG of the part that has pixels, as text, between its first and its last pixel."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = (int(value) for value in (rows[0], rows[-1], columns[0], columns[-1]))
    part = io.BytesIO()
    Image.fromarray(mask[top:bottom + 1, left:right + 1].astype(bool)).save(part, 'PNG')
    return {'shape_type': 'mask', 'points': [[left, top], [right, bottom]],
            'mask': base64.b64encode(part.getvalue()).decode('ascii')}
