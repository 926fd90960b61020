"""Checks of label maps: files, sizes, values, and whether the values fit the classes."""
from collections import Counter
from pathlib import Path

from ..convert.class_files import VOID_NAMES
from .codes import TINY
from .files import FileFacts
from .findings import Findings
from .targets import LabelTarget

HINTS = {'label-colours': 'convert it with --from rgb-masks', 'label-lossy': 'write label maps as PNG'}


class LabelCheck:
    """Checks the label maps of one split one after another, then all together.

    Args:
        target: the label maps.
        findings: problems are added to it.
    """

    def __init__(self, target: LabelTarget, findings: Findings):
        self.target, self.findings = target, findings
        self.images_with = Counter()  # raw value -> number of label maps that have it
        self.files = 0

    def add(self, image: FileFacts, label_file: Path, label: FileFacts) -> None:
        """Check one label map, given the facts about its file and its image's file."""
        add, target = self.findings.add, self.target
        if label.problem == 'missing':
            add('label-missing', label_file)
            return
        if label.problem is not None:
            add('label-unreadable', label_file, value=label.problem)
            return
        if image.size is not None and label.size != image.size:
            add('label-size', label_file, value=f'{_size(label.size)}, its image has {_size(image.size)}')
        code = 'label-lossy' if label.format == 'JPEG' else 'label-colours' if label.channels > 1 else None
        if code is not None:
            add(code, label_file, value=f'{label.channels} channels, {label.format}: {HINTS[code]}')
            return
        self.files += 1
        self.images_with.update(label.values.keys())
        classes = {value: self.class_of(value) for value in label.values}
        self.findings.checked['ignored pixels'] += sum(
            count for value, count in label.values.items() if classes[value] is None)
        if all(number is None for number in classes.values()):
            add('label-all-ignored', label_file, value=f'values {sorted(classes)}')
        beyond = sorted(value for value, number in classes.items()
                        if target.classes and number is not None and not 0 <= number < len(target.classes))
        if beyond:
            add('label-value', label_file, f'value {", ".join(map(str, beyond[:8]))}',
                f'{sum(label.values[value] for value in beyond)} pixels; there are {len(target.classes)} classes, so '
                f'{int(target.reduce_zero_label)} to {len(target.classes) - 1 + target.reduce_zero_label} and '
                f'{target.ignore_index} are expected')

    def class_of(self, value: int) -> int | None:
        """The class index of a raw value, None if it is ignored; as in mmseg's LoadAnnotations."""
        if self.target.reduce_zero_label:
            value = 255 if value in (0, 255) else value - 1
        return None if value == self.target.ignore_index else value

    def finish(self, place) -> None:
        """Check all label maps together; `place` names them."""
        add, target = self.findings.add, self.target
        for file in target.orphans:
            add('label-without-image', file)
        if not target.classes or not self.files:
            return
        count, found = len(target.classes), set(self.images_with) - {255}
        if target.ignore_index < count:
            add('ignore-as-class', place, target.classes[target.ignore_index], f'ignore_index {target.ignore_index}')
        if not target.reduce_zero_label and found and min(found) == 1 and max(found) == count:
            add('labels-from-one', place, value=f'values 1 to {count} for {count} classes')
        if target.reduce_zero_label and found == set(range(count)):
            add('zero-is-class', place, value=f'values 0 to {count - 1} for {count} classes')
        images = Counter()
        for value, times in self.images_with.items():
            images[self.class_of(value)] += times
        for index, name in enumerate(target.classes):
            if name.casefold() in VOID_NAMES:
                add('void-class', place, name)
            if images[index] == 0:
                add('class-absent', place, name)
            elif images[index] < TINY and target.split == 'train':
                add('class-tiny', place, name, f'in {images[index]} images')


def _size(size: tuple[int, int]) -> str:
    return f'{size[0]}x{size[1]}'
