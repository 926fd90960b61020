"""Instance-id masks: one PNG per image in which 0 is background and every other value is one object (Penn-Fudan)."""
import json
from collections import Counter
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ...errors import UserError
from .class_files import find_class_file, read_classes
from .objects import mask_annotation, of_image_size
from .pairs import Pair, find_pairs, image_files, mask_folders, read_ids
from .source import Options, Sample, Skipped, Source, numbered


def detect(root: Path) -> bool:
    """Masks of ids, without a class list."""
    if find_class_file(root) is not None:
        return False
    for folder in mask_folders(root):
        try:
            return bool(read_ids(image_files(folder)[0]).max())
        except (UserError, OSError, SyntaxError):
            continue
    return False


def open_source(root: Path, options: Options) -> Source:
    """One class (`--classes NAME`), or a class for every id (`class_map`, `id_divisor`).

    Raises:
        UserError: no masks, or the classes are not clear.
    """
    skipped = Skipped()
    names, class_of = _class_rule(root, options)  # the latter may be a `ClassMap`
    ignored = {int(value) for value in options.ignore if value.isdigit()}
    pairs = find_pairs(root, options, skipped)
    if options.class_map:
        class_of.check(pairs)
    masks = MaskObjects(options.components, ignored)
    samples = [Sample(pair.image, partial(_annotations, pair, class_of, masks), pair.split) for pair in pairs]
    return Source('det', numbered(names), samples, skipped=skipped, verify=masks.ask)


class MaskObjects:
    """The objects in masks of ids, and whether they may be several with one value.

    Args:
        components: whether every connected part (8 neighbours) of a value is an object.
        ignored: values of no object, besides 0.
    """

    def __init__(self, components: bool, ignored: set[int]):
        self.components, self.ignored = components, ignored
        self.values, self.divided, self.first = set(), set(), None

    def find(self, file: Path) -> list[tuple[int, np.ndarray]]:
        """(value, bool mask) of every object in a file."""
        ids, found = read_ids(file), []
        values = [int(value) for value in np.unique(ids) if value != 0 and int(value) not in self.ignored]
        self.values.update(values)
        for value in values:
            parts = [ids == value]
            if self.components or len(values) == 1:
                count, numbered_parts = cv2.connectedComponents(parts[0].astype(np.uint8))
                if self.components:
                    parts = [numbered_parts == number for number in range(1, count)]
                elif count > 2:
                    self.divided.add(file)
                    self.first = self.first or (file, count - 1)
            found += [(value, part) for part in parts]
        return found

    def ask(self, source: Source) -> None:
        """Ask whether masks of one value hold one object each, if that value has several parts."""
        if not self.components and len(self.values) == 1 and self.divided:
            source.questions.append(
                f'all masks have one value ({next(iter(self.values))}) besides 0, so each counts as one object, but '
                f'{len(self.divided)} have several separate parts ({self.first[0]} has {self.first[1]}): if these are '
                'objects of their own, convert again with --components')


def _annotations(pair: Pair, class_of, masks: MaskObjects, skip) -> list[dict]:
    found = []
    for value, mask in masks.find(pair.mask):
        index = class_of(pair, value)
        if index is None:
            skip('instance id without a class', f'{pair.mask}, id {value}')
        else:
            found.append(mask_annotation(index + 1, mask))
    return of_image_size(found, pair.image)


def _class_rule(root: Path, options: Options) -> tuple[list[str], object]:
    """Class names, and a function (pair, instance id) -> index of its class or None."""
    if options.class_map:
        mapped = ClassMap(options.class_map)
        return mapped.names, mapped
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


class ClassMap:
    """Class names by instance id, for all images or for each: what `--class-map` has.

    Args:
        file: json, instance id -> class name, or image -> such an object. An image is its path below its folder
            without suffix, or its stem.

    Raises:
        UserError: the file is something else.
    """

    def __init__(self, file: str):
        try:
            content = json.loads(Path(file).read_text(encoding='utf-8'))
        except (OSError, ValueError, RecursionError) as error:
            raise self._unfit(file, error) from None
        by_image = isinstance(content, dict) and any(isinstance(value, dict) for value in content.values())
        maps = list(content.values()) if by_image else [content]
        if not all(isinstance(entry, dict) and all(isinstance(name, str) for name in entry.values()) for entry in maps):
            raise self._unfit(file, 'a value is of another kind')
        self.file, self.by_image, self.shared = file, content if by_image else {}, None if by_image else content
        self.names = sorted({name for entry in maps for name in entry.values()})
        self.index_of = {name: index for index, name in enumerate(self.names)}

    def __call__(self, pair: Pair, value: int) -> int | None:
        """Index of the class of an instance of an image, None if it has none."""
        own = self.by_image.get(pair.name, self.by_image.get(pair.image.stem, {}))
        return self.index_of.get((own if self.shared is None else self.shared).get(str(value)))

    def check(self, pairs: list[Pair]) -> None:
        """Refuse a stem that several images have, unless their paths are in the map."""
        times = Counter(pair.image.stem for pair in pairs if pair.name not in self.by_image)
        for stem in self.by_image:
            if times[stem] > 1:
                raise UserError(f'--class-map {self.file}: {times[stem]} images are named {stem}: give their paths '
                                'below the image folder, without suffix')

    @staticmethod
    def _unfit(file: str, reason) -> UserError:
        return UserError(f'--class-map {file} could not be read ({reason}): expected json, instance id -> class name, '
                         'or image -> such an object')
