"""Writes repaired annotations into a new folder: repaired where that is safe, left out where it is not."""
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ...errors import UserError
from ...utils.data_source import is_elsewhere
from ...utils.files import written_whole
from ...utils.images import image_size, open_image
from ..convert.pairs import read_ids
from ..json_stream import stream_json
from ..json_values import is_integer, is_number
from .coco import CocoTables, CocoTarget, check_annotation, read_tables
from .findings import Findings, one_line
from .labels import LabelCheck
from .targets import LabelTarget, Target

CHANGES_FILE = 'changes.txt'
BROKEN_FILES = {'image-missing', 'image-empty', 'image-unreadable', 'image-oversized', 'image-truncated',
                'image-pages'}
# if the mask is fine, box and area are taken from it
FROM_MASK = {'box-inverted', 'box-empty', 'box-not-finite', 'box-off-image', 'mask-box-mismatch'}
ROUNDS = 5  # repairing one problem may reveal another


class ChangeLog:
    """Counts changes and writes them to a file, a line each."""

    def __init__(self, file):
        self.file, self.counts = file, Counter()

    def note(self, what: str, which) -> None:
        """Record that `what` was done to `which`."""
        self.counts[what] += 1
        self.file.write(one_line(f'{what}: {which}') + '\n')


def repair(targets: list[Target], findings: Findings, out: Path) -> list[str]:
    """Write a repaired copy of the annotations into the new folder `out`; returns lines that sum up the changes.

    COCO: one json per split, under its own name, for the same image folders. Label maps: a folder per split. Every
    change is listed in `changes.txt`.

    Args:
        targets: as checked.
        findings: of the check, for the image files.
        out: a folder that does not exist.

    Raises:
        UserError: the data is behind a URL or in shards.
    """
    for target in targets:
        folder = target.label_folder if isinstance(target, LabelTarget) else target.image_folder
        if is_elsewhere(folder):
            raise UserError(f'--fix: {folder} is not a folder of files on this disk: repair the data set there, then '
                            'write its shards, or upload it, again')
    broken = {finding.file for finding in findings if finding.code in BROKEN_FILES}
    with written_whole(out) as part:
        with (part / CHANGES_FILE).open('w', encoding='utf-8') as file:
            changes = ChangeLog(file)
            for target in targets:
                if isinstance(target, LabelTarget):
                    _repair_labels(target, part / 'annotations' / target.split, changes)
                else:
                    _repair_coco(target, broken, part, changes)
    lines = [f'fixed: {count} x {what}' for what, count in changes.counts.most_common()]
    return [*(lines or ['fixed: nothing had to be changed']), f'written to {out}; every change: {out / CHANGES_FILE}']


def repair_annotation(annotation: dict, tables: CocoTables) -> tuple[dict | None, list[str]]:
    """The annotation without its problems, or None to leave it out; and a line per change."""
    done = []
    for _ in range(ROUNDS):
        codes = [code for code, _ in check_annotation(annotation, tables)]
        if not codes:
            break
        repaired = _repaired(annotation, codes[0], tables)
        if repaired is None:
            return None, [f'annotation left out, {codes[0]}']
        done.append(f'annotation repaired, {codes[0]}')
        if repaired == annotation:
            return annotation, []  # a warning that cannot be repaired
        annotation = repaired
    return annotation, done


def _repaired(annotation: dict, code: str, tables: CocoTables) -> dict | None:
    if code in ('annotation-incomplete', 'annotation-unknown-image', 'annotation-unknown-category'):
        return None
    width, height = tables.sizes[tables.by_id[annotation['image_id']]]
    x, y, w, h = annotation['bbox']
    if code in FROM_MASK | {'area-mismatch'}:
        measured = _measure(annotation, width, height)
        return {**annotation, **measured} if measured else None
    if code == 'box-outside':
        right, bottom = min(x + w, width), min(y + h, height)
        x, y = max(x, 0), max(y, 0)
        return {**annotation, 'bbox': [x, y, right - x, bottom - y]}
    if code == 'mask-outside' and isinstance(annotation['segmentation'], list):
        clipped = [np.clip(np.reshape(polygon, (-1, 2)), 0, (width, height)).ravel().tolist()
                   for polygon in annotation['segmentation']]
        return {**annotation, 'segmentation': clipped, **_measure({**annotation, 'segmentation': clipped}, width,
                                                                  height)}
    return annotation if code == 'box-thin' else None


def _measure(annotation: dict, width: int, height: int) -> dict:
    """Box and area from the mask, or the area from the box if there is no mask; empty if neither can be used."""
    segmentation = annotation.get('segmentation')
    if not segmentation:
        x, y, w, h = annotation['bbox']
        return {'area': w * h} if is_number(w * h) and w > 0 and h > 0 and x < width and y < height else {}
    whole = {**annotation, 'bbox': [0, 0, width, height], 'area': None}
    if any(code not in ('mask-box-mismatch', 'mask-outside', 'area-mismatch')
           for code, _ in check_annotation(whole, CocoTables({annotation['image_id']: 0}, [''], [(width, height)],
                                                         {annotation['category_id']: ''}))):
        return {}
    if isinstance(segmentation, list):
        # the time that pycocotools takes grows with the length of the edges, inside the image or not
        near = [np.clip(np.reshape(polygon, (-1, 2)), (-width, -height), (2 * width, 2 * height)).ravel().tolist()
                for polygon in segmentation]
        rle = coco_mask.merge(coco_mask.frPyObjects(near, height, width))
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
        low, high = points.min(0), points.max(0)
        return {'bbox': [*low.tolist(), *(high - low).tolist()], 'area': int(coco_mask.area(rle))}
    rle = segmentation if not isinstance(segmentation['counts'], list) else coco_mask.frPyObjects(segmentation, height,
                                                                                                 width)
    return {'bbox': coco_mask.toBbox(rle).tolist(), 'area': int(coco_mask.area(rle))}


def _repair_coco(target: CocoTarget, broken: set[str], out: Path, changes: ChangeLog) -> None:
    tables = read_tables(target, Findings())
    if tables is None:
        changes.note('annotation file left out, json-broken', target.ann_file)
        return
    images, last_id = _images_kept(target, tables, broken, changes)
    rest, ids, prints, categories = {}, _NewIds(last_id), set(), {}
    with (out / target.ann_file.name).open('w') as file:
        file.write('{"annotations": [')
        for key, value, _, _ in stream_json(target.ann_file):
            if key == 'annotations':
                value = _annotation_kept(value, tables, ids, prints, changes)
                if value is not None:
                    file.write((',\n' if len(ids.taken) > 1 else '\n') + json.dumps(value))
            elif key == 'categories':
                number = value.get('id') if isinstance(value, dict) else None
                if is_integer(number) and number in tables.categories and number not in categories:
                    categories[number] = value
                else:
                    changes.note('category left out', value)
            elif key == 'licenses':
                rest.setdefault(key, []).append(value)
            elif key != 'images':
                rest[key] = value
        for key, value in {'images': images, 'categories': list(categories.values()), **rest}.items():
            file.write(f'{"]" if key == "images" else ""},\n"{key}": {json.dumps(value)}')
        file.write('}\n')


class _NewIds:
    """Ids of a file: the first annotation keeps an id, later ones get new ids above all that the file has."""

    def __init__(self, last: int):
        self.taken, self.last = set(), last

    def take(self, wanted: int) -> int:
        if wanted in self.taken:
            self.last = wanted = self.last + 1
        self.taken.add(wanted)
        return wanted


def _images_kept(target: CocoTarget, tables: CocoTables, broken: set[str],
                 changes: ChangeLog) -> tuple[list[dict], int]:
    """Records whose file can be read, with the size of the file; the others are removed from `tables`.

    Also returns the largest id of an annotation.
    """
    kept, ids, last_id = [], set(), 0
    for key, record, _, _ in stream_json(target.ann_file):
        number = record.get('id') if isinstance(record, dict) and is_integer(record.get('id')) else None
        if key == 'annotations' and number is not None:
            last_id = max(last_id, number)
        if key != 'images':
            continue
        row = tables.by_id.get(number)
        if row is None or number in ids or record.get('file_name') != tables.names[row]:
            changes.note('image left out, its record is incomplete or its id is taken', record)
            continue
        ids.add(number)
        file = target.image_folder / tables.names[row]
        if str(file) in broken or tables.names[row] in tables.outside:
            changes.note('image left out, its file cannot be used', file)
            del tables.by_id[number]
            continue
        size = image_size(file)
        if size != tables.sizes[row] and size[::-1] != tables.sizes[row]:  # swapped: of an image as stored
            changes.note('size of an image corrected', f'{file}, {tables.sizes[row]} to {size}')
            tables.sizes[row] = size
            record = {**record, 'width': size[0], 'height': size[1]}
        kept.append(record)
    return kept, last_id


def _annotation_kept(annotation, tables: CocoTables, ids: _NewIds, prints: set,
                     changes: ChangeLog) -> dict | None:
    repaired, done = repair_annotation(annotation, tables)
    which = annotation.get('id') if isinstance(annotation, dict) else annotation
    for what in done:
        changes.note(what, which)
    if repaired is None:
        return None
    mark = hash((repaired['image_id'], repaired['category_id'], *repaired['bbox']))
    if mark in prints:
        changes.note('annotation left out, annotation-duplicate', which)
        return None
    prints.add(mark)
    number = ids.take(repaired['id'])
    if number != repaired['id']:
        changes.note('annotation renumbered, annotation-id-duplicate', f'{which} to {number}')
    return {**repaired, 'id': number}


def _repair_labels(target: LabelTarget, out: Path, changes: ChangeLog) -> None:
    """Copy label maps; grey ones with three channels get one, and values of no class become ignored."""
    check = LabelCheck(target, Findings())
    for image, label in target.pairs:
        copy = out / label.relative_to(target.label_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open_image(label) as opened:
                is_plain = len(opened.getbands()) == 1 and opened.format != 'JPEG'
            ids = read_ids(label)
        except (UserError, OSError, SyntaxError) as error:
            changes.note('label map left out', f'{label} of {image}: {error}')
            continue
        beyond = [value for value in np.unique(ids).tolist() if target.classes and check.class_of(value) is not None
                  and not 0 <= check.class_of(value) < len(target.classes)]
        if is_plain and not beyond:
            shutil.copyfile(label, copy)
            continue
        ids = np.where(np.isin(ids, beyond), target.ignore_index, ids).astype(np.uint8)
        Image.fromarray(ids).save(copy.with_suffix('.png'))
        done = f'label-value: {beyond} ignored' if beyond else 'label-colours'
        changes.note(f'label map repaired, {done}', label)
