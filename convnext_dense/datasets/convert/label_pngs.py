"""Label PNGs: one channel, or a palette, whose values stand for classes in any numbering (CamVid)."""
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...visualization.draw import IGNORED
from .class_files import ClassEntry, class_indices, find_class_file, read_classes, split_ignored
from .pairs import find_pairs, image_files, mask_folders, read_ids
from .source import Options, Sample, Skipped, Source, numbered

UNKNOWN = 254  # in look-up tables: neither a class nor ignored


def detect(root: Path) -> bool:
    """A list of classes beside masks with one channel."""
    folders = mask_folders(root)
    if not folders or find_class_file(root) is None:
        return False
    try:
        return read_ids(image_files(folders[0])[0]).ndim == 2
    except (UserError, OSError, SyntaxError):
        return False


def open_source(root: Path, options: Options) -> Source:
    """Map every id of the class list to its class; 255 is ignored unless the list has it.

    Raises:
        UserError: no masks, no class list, or more classes than a label PNG holds.
    """
    skipped = Skipped()
    classes, ignored = split_ignored(read_classes(options.classes, root), options.ignore)
    names, indices = class_indices(classes)
    check_class_count(names)
    table = np.full(2**16, UNKNOWN, np.uint8)
    no_class = [IGNORED, *(int(value) for value in options.ignore if value.isdigit()), *(e.id for e in ignored)]
    for number in (*no_class, *(entry.id for entry in classes)):
        if not 0 <= number < len(table):
            raise UserError(f'the class list has the id {number}, expected ids from 0 to {len(table) - 1}')
    table[no_class] = IGNORED
    table[[entry.id for entry in classes]] = indices

    seen: set[int] = set()

    def labels(mask: Path) -> np.ndarray:
        ids = read_ids(mask)
        seen.update(np.unique(ids).tolist())
        if ids.min() < 0 or ids.max() >= len(table):
            raise UserError(f'{mask} has the value {int(ids.max())}, expected ids from 0 to {len(table) - 1}')
        return known_labels(table[ids], mask, options.unknown, lambda unknown: f'id {int(ids[unknown][0])}')

    samples = [Sample(pair.image, lambda skip, mask=pair.mask: labels(mask), pair.split)
               for pair in find_pairs(root, options, skipped)]
    return Source('seg', numbered(names), samples, palette_of(classes, names), skipped, ignored_note(ignored),
                  verify=lambda _: _check_binary(root, seen, {entry.id for entry in (*classes, *ignored)}))


def _check_binary(root: Path, seen: set[int], listed: set[int]) -> None:
    """Refuse masks of 0 and 255 whose 255 would be ignored: there it is the object."""
    if seen == {0, IGNORED} and IGNORED not in listed:
        raise UserError(f'the masks of {root} have the values 0 and 255 only, and 255 is ignored unless the class list '
                        'has it: give a file with the lines `0 background` and `255 NAME` with --classes')


def check_class_count(names: list[str]) -> None:
    """Raises UserError unless there are 1 to 254 classes: 255 of a label PNG is for ignored pixels."""
    if not 1 <= len(names) <= UNKNOWN:
        raise UserError(f'found {len(names)} classes, expected 1 to {UNKNOWN}, which label PNGs can hold')


def known_labels(labels: np.ndarray, mask: Path, unknown: str, describe) -> np.ndarray:
    """`labels` with `UNKNOWN` set to ignored, or an error, as `--unknown` says."""
    beyond = labels == UNKNOWN
    if beyond.any():
        if unknown == 'error':
            raise UserError(f'{mask}: {int(beyond.sum())} pixels have no class, the first has {describe(beyond)}: add '
                            'it to the class list, or ignore all such pixels with --unknown ignore')
        labels[beyond] = IGNORED
    return labels


def palette_of(entries: list[ClassEntry], names: list[str]) -> list[list[int]] | None:
    """The colour of each class if all have one, otherwise None."""
    colours = {entry.name: entry.colour for entry in reversed(entries)}
    return [list(colours[name]) for name in names] if all(colours.values()) else None


def ignored_note(ignored: list[ClassEntry]) -> list[str]:
    """The sentence that says which classes of the list are ignored."""
    return [f'ignored (label 255): {", ".join(entry.name for entry in ignored)}'] if ignored else []
