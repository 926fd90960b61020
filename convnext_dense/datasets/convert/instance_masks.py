"""Instance-id masks: one PNG per image in which 0 is background and every other value is one object (Penn-Fudan)."""
import json
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from ...errors import UserError
from .class_files import find_class_file, read_classes
from .pairs import Pair, find_pairs, image_files, mask_folders, read_ids
from .source import Options, Sample, Skipped, Source, numbered

TASK = 'det'


def detect(root: Path) -> bool:
    """Masks of small ids, and no list of classes that they could stand for."""
    if find_class_file(root) is not None:
        return False
    for folder in mask_folders(root):
        try:
            return bool(read_ids(image_files(folder)[0]).max())
        except (UserError, OSError):
            continue
    return False


def open_source(root: Path, options: Options) -> Source:
    """One class (`--classes NAME`), or a class for every id (`class_map`, `id_divisor`).

    Raises:
        UserError: no masks, or the classes are not clear.
    """
    skipped = Skipped()
    names, class_of = _class_rule(root, options)
    ignored = {int(value) for value in options.ignore if value.isdigit()}
    samples = [Sample(pair.image, lambda skip, pair=pair: _annotations(pair, class_of, ignored, skip), pair.split)
               for pair in find_pairs(root, options, skipped)]
    return Source('det', numbered(names), samples, skipped=skipped)


def rle_annotation(mask: np.ndarray, category_id: int) -> dict:
    """COCO annotation of a bool mask (H, W); the run lengths hold it exactly."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {'category_id': category_id, 'bbox': [float(v) for v in coco_mask.toBbox(rle)],
            'area': int(coco_mask.area(rle)), 'iscrowd': 0,
            'segmentation': {'size': list(mask.shape), 'counts': rle['counts'].decode('ascii')}}


def _annotations(pair: Pair, class_of, ignored: set[int], skip) -> list[dict]:
    ids = read_ids(pair.mask)
    found = []
    for value in np.unique(ids):
        if value == 0 or int(value) in ignored:
            continue
        index = class_of(pair.image.stem, int(value))
        if index is None:
            skip('instance id without a class', f'{pair.mask}, id {value}')
        else:
            found.append(rle_annotation(ids == value, index + 1))
    return found


def _class_rule(root: Path, options: Options) -> tuple[list[str], object]:
    """Class names, and a function (image stem, instance id) -> index of its class or None."""
    if options.class_map:
        return _mapped(options.class_map)
    if options.id_divisor:
        entries = read_classes(options.classes, root)
        index_of = {entry.id: index for index, entry in enumerate(entries)}
        return [entry.name for entry in entries], lambda _, value: index_of.get(value // options.id_divisor)
    entries = read_classes(options.classes, root) if options.classes else []
    if len(entries) != 1:
        raise UserError(f'instance masks say which object a pixel is of, not which class: found '
                        f'{len(entries) or "no"} class names, expected --classes with one name, --class-map FILE or '
                        '--id-divisor N')
    return [entries[0].name], lambda _, value: 0


def _mapped(file: str) -> tuple[list[str], object]:
    try:
        content = json.loads(Path(file).read_text())
        maps = [value for value in content.values() if isinstance(value, dict)] or [content]
        names = sorted({name for mapping in maps for name in mapping.values()})
        index_of = {name: index for index, name in enumerate(names)}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f'--class-map {file} could not be read ({error}): expected json, instance id -> class name, or '
                        'image stem -> such a mapping') from None

    def class_of(stem: str, value: int) -> int | None:
        mapping = content.get(stem, {}) if maps[0] is not content else content
        return index_of.get(mapping.get(str(value)))

    return names, class_of
