"""Converts common annotation formats to the two layouts that configs read (`..layout`).

A format is a module with `TASK`, `detect(root) -> bool` and `open_source(root, options) -> Source`, and a line in
`FORMATS`.
"""
from pathlib import Path
from types import ModuleType

from ...errors import UserError
from . import coco, instance_masks, label_pngs, rgb_masks, yolo

FORMATS: dict[str, ModuleType] = {
    'coco': coco,
    'yolo': yolo,
    'instance-masks': instance_masks,
    'label-pngs': label_pngs,
    'rgb-masks': rgb_masks,
}


def detect_format(root) -> str:
    """The name of the format of a folder (or of a json file).

    Raises:
        UserError: several fit, or none.
    """
    found = [name for name, module in FORMATS.items() if module.detect(Path(root))]
    if len(found) == 1:
        return found[0]
    raise UserError(f'{root} ' + (f'may be {" or ".join(found)}' if found else 'is in no format that is known here')
                    + f': say which with --from {"|".join(found or FORMATS)}')
