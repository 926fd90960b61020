"""Cellpose: masks of ids beside the images, `a.tif` and `a_masks.tif` (or `a_cp_masks.png`, or `a_img.png`)."""
from functools import partial
from pathlib import Path

from ...errors import UserError
from .class_files import read_classes
from .instance_masks import MaskObjects
from .objects import mask_annotation, of_image_size
from .pairs import Pair, check_pairs, image_files, split_of
from .source import Options, Sample, Skipped, Source, numbered

MASK_ENDINGS = ('_cp_masks', '_masks')
OTHER_ENDINGS = ('_flows', '_outlines', '_cp_output', '_cp_outlines')  # what Cellpose writes besides
IMAGE_ENDINGS = ('', '_img')


def detect(root: Path) -> bool:
    """Masks and images in one folder."""
    return root.is_dir() and any(image for _, image in _pairs(root))


def open_source(root: Path, options: Options) -> Source:
    """One class, `--classes NAME`. `_seg.npy` files are not read: they may hold code.

    Raises:
        UserError: no masks, or not one class.
    """
    skipped, found = Skipped(), []
    entries = read_classes(options.classes, root) if options.classes else []
    if len(entries) != 1:
        raise UserError(f'masks of cells do not say their class: found {len(entries) or "no"} class names, expected '
                        '--classes with one name')
    for mask, image in _pairs(root):
        if image is None:
            skipped.add('mask without an image', mask)
        elif split_of(image, root) == 'test':
            skipped.add('image of a test split', image)
        else:
            found.append(Pair(image, mask, split_of(image, root), image.stem))
    if not found:
        raise UserError(f'{root} has no image with a mask beside it, as a.tif and a_masks.tif')
    used = {file for pair in _pairs(root) for file in pair}
    for file in image_files(root):
        if file not in used and not file.stem.endswith(OTHER_ENDINGS):
            skipped.add('image without a mask', file)
    check_pairs(found)
    masks = MaskObjects(options.components, set())
    samples = [Sample(pair.image, partial(_annotations, pair, masks), pair.split) for pair in found]
    return Source('det', numbered([entries[0].name]), samples, skipped=skipped, verify=masks.ask)


def _pairs(root: Path) -> list[tuple[Path, Path | None]]:
    """(mask, its image) for every mask below a folder."""
    files = image_files(root)
    known = {(file.parent, file.stem): file for file in files}
    pairs = []
    for file in files:
        ending = next((ending for ending in MASK_ENDINGS if file.stem.endswith(ending)), None)
        if ending is not None:
            stem = file.stem.removesuffix(ending)
            images = [known[file.parent, stem + end] for end in IMAGE_ENDINGS if (file.parent, stem + end) in known]
            pairs.append((file, images[0] if images else None))
    return pairs


def _annotations(pair: Pair, masks: MaskObjects, skip) -> list[dict]:
    return of_image_size([mask_annotation(1, mask) for _, mask in masks.find(pair.mask)], pair.image)
