"""Checks of a COCO json file, read as a stream: its images and a few numbers per annotation are kept in memory."""
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as short_repr

import numpy as np

from ...errors import UserError
from ...utils.files import is_inside
from ..box_format import BoxFormat
from ..json_stream import stream_json
from ..json_values import is_integer, is_number
from ..layout import is_class_name
from .codes import SMALL_SIDE, TINY
from .findings import Findings
from .segmentations import SLACK, check_area, check_mask

REQUIRED = ('images', 'annotations', 'categories')


@dataclass
class CocoTarget:
    """A COCO file to check.

    Args:
        split: 'train', 'val' or another name.
        ann_file: the json file.
        image_folder: of its images.
        classes: those that the config trains; None for all categories.
        scale: (long, short) sides to which the config resizes images, or None.
        data_folder: what images must lie in besides `image_folder`, or None.
        value_range: (low, high), the values that become 0 and 255 in images of more than 8 bits, or None.
    """
    split: str
    ann_file: Path
    image_folder: Path
    classes: list[str] | None = None
    scale: tuple[int, int] | None = None
    data_folder: Path | None = None
    value_range: tuple[float, float] | None = None


@dataclass
class CocoTables:
    """Images and categories of a file; `by_id` is image id -> row of `names` and `sizes`, for every good record.

    `outside` has the names that lead out of the data folder, `keys` the keys of the file.
    """
    by_id: dict[int, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)


def read_tables(target: CocoTarget, findings: Findings) -> CocoTables | None:
    """Read images and categories, and report problems of their records; None if the file is not json."""
    tables, file, names, category_names = CocoTables(), target.ann_file, set(), set()
    try:
        for key, value, _, _ in stream_json(file):
            tables.keys.add(key)
            if key == 'images':
                _add_image(value, tables, names, target, findings)
            elif key == 'categories':
                _add_category(value, tables, category_names, file, findings)
    except UserError as error:
        findings.add('json-broken', file, value=str(error))
        return None
    missing = [key for key in REQUIRED if key not in tables.keys]
    if missing:
        findings.add('json-incomplete', file, value=f'no {", ".join(missing)}')
    ids = sorted(tables.categories)
    if ids and ids != list(range(1, len(ids) + 1)):
        findings.add('category-ids', file, value=f'{len(ids)} ids from {ids[0]} to {ids[-1]}')
    return tables


def check_annotations(target: CocoTarget, tables: CocoTables, findings: Findings) -> Counter:
    """Check every annotation, then all of them together; returns category id -> number of objects."""
    file, counts = target.ann_file, Counter()
    ids, prints, printed, occupied, without_mask, small = array('q'), array('q'), array('q'), set(), [], []
    boxes = BoxFormat()
    with_mask = 0
    for key, annotation, _, _ in stream_json(file):
        if key != 'annotations':
            continue
        findings.checked['annotations'] += 1
        name = annotation.get('id') if isinstance(annotation, dict) else None
        problems = list(check_annotation(annotation, tables))
        for code, value in problems:
            findings.add(code, file, _who(annotation, tables), value)
        if is_integer(name):
            ids.append(name)
        if any(code in ('annotation-incomplete', 'annotation-unknown-image') for code, _ in problems):
            continue
        row = tables.by_id[annotation['image_id']]
        occupied.add(row)
        counts[annotation['category_id']] += 1
        box = annotation['bbox']
        prints.append(hash((row, annotation['category_id'], *box)))
        printed.append(name)
        if all(map(is_number, box)):
            boxes.add(box, *tables.sizes[row])
        if not annotation.get('segmentation'):  # [] is how boxes are written by many tools
            without_mask.append(name)
        else:
            with_mask += 1
        if not problems and _is_small(box, tables.sizes[row], target.scale):
            small.append((name, f'{box[2]:.1f}x{box[3]:.1f}'))
    _report_repeated(ids, prints, printed, target, findings)
    if boxes.is_shares:
        findings.add('box-shares', file, value=boxes.sentence)
    if boxes.is_corners:
        findings.add('box-corners', file, value=boxes.sentence)
    if with_mask:
        for name in without_mask:
            findings.add('mask-missing', file, f'annotation {name}')
    if small:
        findings.add('object-small', file, f'{len(small)} of {len(ids)} objects, the first is annotation {small[0][0]}',
                     f'{small[0][1]} pixels before resizing')
    empty = len(tables.names) - len(occupied)
    if empty:
        first = next(name for row, name in enumerate(tables.names) if row not in occupied)
        findings.add('image-without-objects', file, f'{empty} of {len(tables.names)} images', f'the first is {first}')
    return counts


def check_annotation(annotation, tables: CocoTables) -> Iterator[tuple[str, object]]:
    """(code, value) of every problem of one annotation."""
    if not isinstance(annotation, dict):
        yield 'annotation-incomplete', f'{type(annotation).__name__}, expected an object'
        return
    for key in ('id', 'image_id', 'category_id'):
        if not is_integer(annotation.get(key)):
            yield 'annotation-incomplete', f'{key} is {short_repr(annotation.get(key))}, expected an integer'
            return
    box = annotation.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, (int, float)) for value in box):
        yield 'annotation-incomplete', f'bbox is {short_repr(box)}, expected x, y, width and height'
        return
    row = tables.by_id.get(annotation['image_id'])
    if row is None:
        yield 'annotation-unknown-image', f'image_id {annotation["image_id"]}'
        return
    if annotation['category_id'] not in tables.categories:
        yield 'annotation-unknown-category', f'category_id {annotation["category_id"]}'
    width, height = tables.sizes[row]
    problem = _box_problem(box, width, height)
    if problem is not None:
        yield problem
    if problem is None or problem[0] in ('box-outside', 'box-thin'):
        if annotation.get('segmentation') not in (None, [], {}):
            yield from check_mask(annotation, width, height)
        else:
            yield from check_area(annotation, box[2] * box[3])


def check_counts(target: CocoTarget, tables: CocoTables, counts: Counter, findings: Findings) -> None:
    """Report absent and tiny classes, and classes of the config that do not fit the categories."""
    names = Counter()
    for category, name in tables.categories.items():
        names[name] += counts[category]
    known = list(names)
    for name in target.classes or []:
        if name not in names:
            findings.add('class-unknown', target.ann_file, name, f'the file has {", ".join(known[:10])}')
    for name in known:
        if target.classes and name not in target.classes:
            findings.add('category-dropped', target.ann_file, name, f'{names[name]} objects')
        elif names[name] == 0:
            findings.add('class-absent', target.ann_file, name)
        elif names[name] < TINY and target.split == 'train':
            findings.add('class-tiny', target.ann_file, name, f'{names[name]} objects')


def _add_image(record, tables: CocoTables, names: set, target: CocoTarget, findings: Findings) -> None:
    file = target.ann_file
    fits = {'id': is_integer, 'file_name': lambda value: isinstance(value, str),
            'width': _is_side, 'height': _is_side}
    wrong = [key for key, fit in fits.items() if not isinstance(record, dict) or not fit(record.get(key))]
    if wrong:
        shown = record if not isinstance(record, dict) else record.get('file_name', record.get('id'))
        findings.add('image-incomplete', file, short_repr(shown) if not isinstance(shown, str) else shown,
                     f'{", ".join(wrong)} missing or wrong')
        return
    if record['id'] in tables.by_id:
        findings.add('image-id-duplicate', file, f'image {record["id"]}', record['file_name'])
        return
    if record['file_name'] in names:
        findings.add('file-name-duplicate', file, f'image {record["id"]}', record['file_name'])
    names.add(record['file_name'])
    folders = (target.image_folder, target.data_folder or target.image_folder)
    if not is_inside(target.image_folder / record['file_name'], folders):
        findings.add('image-outside', file, f'image {record["id"]}', record['file_name'])
        tables.outside.add(record['file_name'])
    tables.by_id[record['id']] = len(tables.names)
    tables.names.append(record['file_name'])
    tables.sizes.append((record['width'], record['height']))


def _is_side(value) -> bool:
    return is_integer(value) and 1 <= value < 2**31


def _add_category(record, tables: CocoTables, names: set, file: Path, findings: Findings) -> None:
    number, name = (record.get('id'), record.get('name')) if isinstance(record, dict) else (None, None)
    if not is_integer(number) or not isinstance(name, str):
        findings.add('json-incomplete', file, value=f'no integer id and name in the category {short_repr(record)}')
    elif number in tables.categories:
        findings.add('category-id-duplicate', file, f'category {number}', name)
    else:
        if name in names:
            findings.add('category-name-duplicate', file, f'category {number}', name)
        elif not is_class_name(name):
            findings.add('category-name', file, f'category {number}', name)
        names.add(name)
        tables.categories[number] = name


def _box_problem(box: list, width: int, height: int) -> tuple[str, object] | None:
    x, y, w, h = box
    if not all(is_number(value) for value in box):
        return 'box-not-finite', box
    if w < 0 or h < 0:
        return 'box-inverted', box
    if w == 0 or h == 0:
        return 'box-empty', box
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return 'box-off-image', f'{box} in an image of {width}x{height}'
    if w < 1 or h < 1:
        return 'box-thin', box
    if x < -SLACK or y < -SLACK or x + w > width + SLACK or y + h > height + SLACK:
        return 'box-outside', f'{box} in an image of {width}x{height}'
    return None


def _is_small(box: list, size: tuple[int, int], scale: tuple[int, int] | None) -> bool:
    """Whether a side is under SMALL_SIDE after mmcv's Resize(scale, keep_ratio=True)."""
    if scale is None:
        return False
    return min(box[2:]) * min(scale[0] / max(size), scale[1] / min(size)) < SMALL_SIDE


def _who(annotation, tables: CocoTables) -> str:
    if not isinstance(annotation, dict):
        return 'annotation'
    row = tables.by_id.get(annotation.get('image_id')) if is_integer(annotation.get('image_id')) else None
    return f'annotation {short_repr(annotation.get("id"))}' + (f' of {tables.names[row]}' if row is not None else '')


def _report_repeated(ids: array, prints: array, printed: array, target: CocoTarget, findings: Findings) -> None:
    """Report ids that come twice, and `prints` (hashes of image, category and box) of the annotations `printed`."""
    found, times = np.unique(np.array(ids, np.int64), return_counts=True)
    for name, count in zip(found[times > 1].tolist(), times[times > 1].tolist(), strict=True):
        findings.add('annotation-id-duplicate', target.ann_file, f'annotation {name}', f'{count} times')
    _, first, times = np.unique(np.array(prints, np.int64), return_index=True, return_counts=True)
    for index, count in zip(first[times > 1].tolist(), times[times > 1].tolist(), strict=True):
        findings.add('annotation-duplicate', target.ann_file, f'annotation {printed[index]}', f'{count} times')
