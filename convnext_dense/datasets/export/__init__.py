"""Writes a data set in the formats of labelling tools and other toolkits: the way back from `..convert`.

A format is a module with `write(root, source, planned, link)` and a line in `EXPORTS`.
"""
import json
from collections.abc import Callable
from pathlib import Path

from ...errors import UserError
from ...utils.files import written_whole
from ..convert.planning import PlannedSample
from ..convert.source import Source
from . import coco, labelme, voc, yolo

EXPORTS: dict[str, Callable[[Path, Source, list[PlannedSample], str], None]] = {
    'coco': coco.write, 'yolo': yolo.write, 'voc': voc.write, 'labelme': labelme.write}
MARKER = 'export.json'  # tells an earlier export, which may be replaced


def write_export(out: Path, name: str, source: Source, planned: list[PlannedSample], link: str) -> None:
    """Write a data set to `out`, all of it or nothing; what a format cannot hold is added to `source`.

    Args:
        out: the folder; an existing one is replaced.
        name: a key of `EXPORTS`.
        source: for detection, from a format's `open_source`.
        planned: from `plan_samples`.
        link: 'copy', 'hardlink' or 'symlink': how images get into the folder.

    Raises:
        UserError: the data set is for segmentation.
    """
    if source.task != 'det':
        raise UserError(f'--to {name} is for boxes and masks of objects, and the data set is for segmentation: leave '
                        '--to out')
    with written_whole(out) as part:
        EXPORTS[name](part, source, planned, link)
        (part / MARKER).write_text(json.dumps({'format': name, 'classes': source.classes}) + '\n', encoding='utf-8')
