"""RGB-coded masks: a colour per class, listed as `name r g b` lines, json or CamVid's label_colors.txt."""
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...utils.images import OversizedImageError, open_image
from ...visualization.draw import IGNORED
from .class_files import class_indices, find_class_file, read_classes, split_ignored
from .label_pngs import UNKNOWN, check_class_count, ignored_note, known_labels, palette_of
from .pairs import find_pairs, image_files, mask_folders, read_ids
from .source import Options, Sample, Skipped, Source, numbered


def detect(root: Path) -> bool:
    """A list of classes with colours beside masks with colours."""
    file, folders = find_class_file(root), mask_folders(root)
    if file is None or not folders or not any(entry.colour for entry in read_classes(str(file), root)):
        return False
    try:
        read_ids(image_files(folders[0])[0])
    except OversizedImageError:
        return False
    except UserError:
        return True
    except (OSError, SyntaxError):
        pass
    return False


def open_source(root: Path, options: Options) -> Source:
    """Map every colour of the class list to its class; several colours may share a name.

    Raises:
        UserError: no masks, or a class without a colour.
    """
    skipped = Skipped()
    entries = read_classes(options.classes, root)
    without = [entry.name for entry in entries if entry.colour is None]
    if without:
        raise UserError(f'the class list has no colour for {without[0]}: RGB masks need `name r g b` on every line')
    classes, ignored = split_ignored(entries, options.ignore)
    names, indices = class_indices(classes)
    check_class_count(names)
    table = np.full(2**24, UNKNOWN, np.uint8)
    table[[_code(np.array(entry.colour)) for entry in ignored]] = IGNORED
    table[[_code(np.array(entry.colour)) for entry in classes]] = indices

    def labels(mask: Path) -> np.ndarray:
        with open_image(mask) as image:
            colours = np.asarray(image.convert('RGB'))
        return known_labels(table[_code(colours)], mask, options.unknown,
                            lambda unknown: f'the colour {colours[unknown][0].tolist()}')

    samples = [Sample(pair.image, lambda skip, mask=pair.mask: labels(mask), pair.split)
               for pair in find_pairs(root, options, skipped)]
    return Source('seg', numbered(names), samples, palette_of(classes, names), skipped, ignored_note(ignored))


def _code(colours: np.ndarray) -> np.ndarray:
    """One number per colour: (..., 3) to (...)."""
    return colours.astype(np.int32) @ np.array([2**16, 2**8, 1], np.int32)
