"""The part of panopticapi that mmdet imports: segments as colours, and panoptic quality. It is not on PyPI.

Definitions: "Panoptic Segmentation" (Kirillov et al., 2019), section 4, and COCO's panoptic format, which stores a
segment's id as R + 256 G + 65536 B.
"""
import sys
from collections import defaultdict
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np

from .environment import installed

VOID = 0  # id of pixels without a segment
OFFSET = 256 ** 3  # more than any id


def install() -> None:
    """Put a module ``panopticapi`` in place, unless the package itself is installed."""
    if 'panopticapi' in sys.modules or installed('panopticapi'):
        return
    package, utils, evaluation = (ModuleType(f'panopticapi{name}') for name in ('', '.utils', '.evaluation'))
    utils.rgb2id, utils.id2rgb = rgb2id, id2rgb
    evaluation.VOID, evaluation.OFFSET, evaluation.PQStat = VOID, OFFSET, PQStat
    package.__path__, package.utils, package.evaluation = [], utils, evaluation
    for module in (package, utils, evaluation):
        module.__spec__ = ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module


def rgb2id(colour):
    """Ids, int32 (height, width), of an image (height, width, 3) of colours; or the id of one colour."""
    if isinstance(colour, np.ndarray) and colour.ndim == 3:
        return colour.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    return int(colour[0]) + 256 * int(colour[1]) + 65536 * int(colour[2])


def id2rgb(ids):
    """Colours, uint8 (height, width, 3), of an array of ids; or the colour of one id as a list."""
    if isinstance(ids, np.ndarray):
        return np.stack([ids // 256 ** i % 256 for i in range(3)], axis=-1).astype(np.uint8)
    return [ids // 256 ** i % 256 for i in range(3)]


class ClassStat:
    """Counts of one class: matched segments, the sum of their IoUs, and unmatched ones.

    Attributes:
        iou: sum over matched pairs.
        tp, fp, fn: matched pairs, predicted segments without a match, ground truth without one.
    """

    def __init__(self):
        self.iou, self.tp, self.fp, self.fn = 0.0, 0, 0, 0

    def __iadd__(self, other: 'ClassStat') -> 'ClassStat':
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


class PQStat:
    """Counts of all classes, by category id."""

    def __init__(self):
        self.pq_per_cat = defaultdict(ClassStat)

    def __getitem__(self, category: int) -> ClassStat:
        return self.pq_per_cat[category]

    def __iadd__(self, other: 'PQStat') -> 'PQStat':
        for category, stat in other.pq_per_cat.items():
            self.pq_per_cat[category] += stat
        return self

    def pq_average(self, categories: dict[int, dict], isthing: bool | None) -> tuple[dict, dict]:
        """Mean panoptic, segmentation and recognition quality over the classes that occur, and those of each class.

        Args:
            categories: category id -> dict with ``isthing``.
            isthing: only things, only stuff, or, with None, all classes.

        Returns:
            dict(pq=..., sq=..., rq=..., n=number of classes), and category id -> dict(pq=..., sq=..., rq=...).
        """
        of_classes, present = {}, []
        for category, info in categories.items():
            if isthing is not None and bool(info['isthing']) != isthing:
                continue
            stat = self.pq_per_cat[category]
            segments = stat.tp + 0.5 * stat.fp + 0.5 * stat.fn
            of_classes[category] = dict(pq=stat.iou / segments if segments else 0.0,
                                        sq=stat.iou / stat.tp if stat.tp else 0.0,
                                        rq=stat.tp / segments if segments else 0.0)
            if segments:
                present.append(of_classes[category])
        mean = {key: sum(each[key] for each in present) / max(len(present), 1) for key in ('pq', 'sq', 'rq')}
        return {**mean, 'n': len(present)}, of_classes
