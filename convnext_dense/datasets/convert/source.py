"""The result of opening a source: its categories, and samples whose annotations are read one at a time."""
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Skip = Callable[[str, str], None]  # called with (reason, example)


class UnusableAnnotation(Exception):
    """The annotation of an image as a whole cannot be used.

    Args:
        reason: for the summary.
        objects: how many it has.
    """

    def __init__(self, reason: str, objects: int = 0):
        super().__init__(reason)
        self.objects = objects


TEST_SPLIT = ('image of a test split', 'annotation file of a test split')  # left out by design


@dataclass
class Skipped:
    """What was left out: reason -> [number, first example]."""
    reasons: dict[str, list] = field(default_factory=dict)

    def add(self, reason: str, example, count: int = 1) -> None:
        """Count what was left out."""
        self.reasons.setdefault(reason, [0, str(example)])[0] += count

    @property
    def has_losses(self) -> bool:
        """Whether anything but test splits was left out."""
        return any(reason not in TEST_SPLIT for reason in self.reasons)


@dataclass(frozen=True)
class Options:
    """Options of the command line about a source; each format uses those that it needs.

    Args:
        classes: names separated by commas, or a file of them (docs/datasets.md).
        ignore: class names, or ids, whose pixels are ignored.
        images: folders of images, relative to the source; default: found by name.
        masks: folders of masks or labels, one for each of `images`.
        unknown: 'error' or 'ignore': how a pixel with an unknown id or colour is treated.
        class_map: instance-masks: json file, instance id -> class name, or image -> such an object.
        id_divisor: instance-masks: the class id is the instance id divided by this, as in Cityscapes (1000).
        components: masks: every connected part of a value is an object.
        boxes: coco: 'xywh', or 'xyxy' for files with corners.
        min_score: predictions: detections below it are left out.
    """
    classes: str | None = None
    ignore: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    unknown: str = 'error'
    class_map: str | None = None
    id_divisor: int | None = None
    components: bool = False
    boxes: str = 'xywh'
    min_score: float = 0.0


@dataclass(frozen=True)
class Sample:
    """One image of a source.

    Args:
        image: its file.
        load: reads the annotation. Detection: COCO annotation dicts (category_id, bbox, area, iscrowd and, where there
            is a mask, segmentation; ids are optional). Segmentation: uint8 (H, W) labels, 0 to n-1 and 255. It is
            called twice, to plan and to write, with a function that it calls for everything it leaves out.
        split: 'train', 'val', or None if the source does not say.
        record: more keys of the image's record in COCO json; an `id` is kept if it is free.
    """
    image: Path
    load: Callable[[Skip], list[dict] | np.ndarray]
    split: str | None = None
    record: dict = field(default_factory=dict)


@dataclass
class Source:
    """A data set to convert.

    Args:
        task: 'det' or 'seg'.
        categories: COCO category dicts (id, name, ...) in the order of the classes.
        samples: every image; light, since annotations are read by `Sample.load`.
        palette: RGB per class, or None.
        skipped: what was left out while listing the samples.
        notes: sentences for the summary.
        questions: sentences for the summary about what may be wrong.
        single: all images belong together, and are not divided into splits.
        verify: called when every annotation has been read: adds to `notes` and `questions`, or raises a UserError.
    """
    task: str
    categories: list[dict]
    samples: list[Sample]
    palette: list[list[int]] | None = None
    skipped: Skipped = field(default_factory=Skipped)
    notes: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    single: bool = False
    verify: Callable[['Source'], None] | None = None

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the model's outputs."""
        return [category['name'] for category in self.categories]


def numbered(names: list[str]) -> list[dict]:
    """COCO categories with ids from 1."""
    return [{'id': i + 1, 'name': name} for i, name in enumerate(names)]
