"""Converts common annotation formats to the two layouts that configs read (`..layout`).

A format is a module with `detect(root) -> bool` and `open_source(root, options) -> Source`, and a line in
`FORMATS`.
"""
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError, few
from . import (
    cellpose,
    cityscapes,
    coco,
    cvat,
    instance_masks,
    label_pngs,
    labelme,
    object_masks,
    predictions,
    rgb_masks,
    supervisely,
    voc,
    yolo,
)
from .source import Options, Source


class Format(NamedTuple):
    """How a format is recognised and read; `detect` and `open_source` of its module."""
    detect: Callable[[Path], bool]
    open_source: Callable[[Path, Options], Source]


FORMATS: dict[str, Format] = {
    'coco': Format(coco.detect, coco.open_source),
    'yolo': Format(yolo.detect, yolo.open_source),
    'voc': Format(voc.detect, voc.open_source),
    'labelme': Format(labelme.detect, labelme.open_source),
    'cvat': Format(cvat.detect, cvat.open_source),
    'supervisely': Format(supervisely.detect, supervisely.open_source),
    'instance-masks': Format(instance_masks.detect, instance_masks.open_source),
    'object-masks': Format(object_masks.detect, object_masks.open_source),
    'cellpose': Format(cellpose.detect, cellpose.open_source),
    'cityscapes': Format(cityscapes.detect, cityscapes.open_source),
    'cityscapes-instances': Format(cityscapes.detect_instances, cityscapes.open_instances),
    'label-pngs': Format(label_pngs.detect, label_pngs.open_source),
    'rgb-masks': Format(rgb_masks.detect, rgb_masks.open_source),
    'predictions': Format(predictions.detect, predictions.open_source),
}


def detect_format(root) -> str:
    """The name of the format of a folder (or of a json, yaml or XML file).

    Raises:
        UserError: several fit, or none; then it says what is there.
    """
    found = [name for name, entry in FORMATS.items() if entry.detect(Path(root))]
    if len(found) == 1:
        return found[0]
    raise UserError(f'{root} ' + (f'may be {" or ".join(found)}' if found else
                                  f'is in no format that is known here, it has {_content(Path(root))}')
                    + f': say which with --from {"|".join(found or FORMATS)}')


def _content(root: Path) -> str:
    """What a folder has: files by suffix, and folders."""
    if root.is_file():
        return f'the suffix {root.suffix or "(none)"}'
    files = [file for file in root.rglob('*') if file.is_file() and not file.name.startswith('.')]
    suffixes = Counter(file.suffix.lower() or 'no suffix' for file in files)
    folders = sorted(path.name for path in root.iterdir() if path.is_dir())
    counts = ', '.join(f'{count} {suffix}' for suffix, count in suffixes.most_common(5))
    return (f'{counts} files' if counts else 'no file') + (f' and the folders {few(folders)}' if folders else '')
