"""Images and the mask files that belong to them, found by folder and file name."""
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...utils.images import IMAGE_SUFFIXES, open_image
from .source import Options, Skipped

IMAGE_FOLDERS = ('images', 'JPEGImages', 'PNGImages', 'image', 'imgs', 'img')
MASK_FOLDERS = ('masks', 'PedMasks', 'labels', 'annotations', 'SegmentationClass', 'SegmentationObject', 'mask',
                'label', 'annotation', 'gt')
SPLIT_NAMES = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val',
               'test': 'test', 'testing': 'test'}

COMPARED = 5  # pairs of which image and mask are compared
NEAR = 32  # as far from 0 and 255 are values of a JPEG that stand for these
FLAT, UNEVEN = 0.8, 0.6  # share of equal neighbours: more in a mask, less in a photograph

Place = tuple[str, ...]  # folders between the root of images or masks and a file, split names in one spelling


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Args:
        image, mask: the files.
        split: 'train', 'val' or None, from the names of the folders.
        name: path of the image below its folder without suffix, as `camel/00000`.
    """
    image: Path
    mask: Path
    split: str | None
    name: str


def image_files(folder: Path) -> list[Path]:
    """All image files below a folder, sorted; hidden files are left out."""
    return sorted(file for file in folder.rglob('*')
                  if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith('.'))


def split_of(file: Path, folder: Path) -> str | None:
    """'train', 'val', 'test' or None, from the folders between `folder` (included) and the file."""
    for part in (*file.relative_to(folder).parts[:-1], folder.name):
        split = _split_name(part)
        if split is not None:
            return split
    return None


def mask_folders(root: Path) -> list[Path]:
    """Folders of a source that by their name may hold masks, and do hold images."""
    return [root / name for name in MASK_FOLDERS if (root / name).is_dir() and image_files(root / name)]


def find_pairs(root: Path, options: Options, skipped: Skipped) -> list[Pair]:
    """Pairs of image and mask with the same relative path and the same stem, or an ending (`a.jpg`, `a_mask.png`).

    The folders may differ where one of them is missing on one side (`train/a.jpg`, `a.png`), and in the spelling of a
    split (`train`, `trainannot`).

    Raises:
        UserError: no folder of images or of masks, more than one that may be meant, no pair at all, or a mask or an
            image that could belong to several.
    """
    if options.images and len(options.images) != len(options.masks or options.images):
        raise UserError(f'--images names {len(options.images)} folders and --masks {len(options.masks)}: give as many')
    folders = list(zip(_folders(root, options.images, IMAGE_FOLDERS, '--images'),
                       _folders(root, options.masks, MASK_FOLDERS, '--masks'), strict=False))
    pairs = []
    for images, masks in folders:
        pairs += _pairs_of(images, masks, skipped)
    if not pairs:
        raise UserError(f'no image of {", ".join(str(i) for i, _ in folders)} has a mask in '
                        f'{", ".join(str(m) for _, m in folders)}: expected the image\'s path and name, or that and an '
                        'ending such as _mask')
    check_pairs(pairs)
    return pairs


def check_pairs(pairs: list[Pair]) -> None:
    """Refuse images that are their own masks, and folders that are swapped.

    Raises:
        UserError: names the first such pair.
    """
    for pair in pairs:
        if pair.image.samefile(pair.mask):
            raise UserError(f'{pair.image} is its own mask: name the folder of the masks with --masks')
    flat = [(_flatness(pair.image), _flatness(pair.mask)) for pair in pairs[:COMPARED]]
    if all(image > FLAT and mask < UNEVEN for image, mask in flat):
        raise UserError(f'{pairs[0].image} looks like a mask and {pairs[0].mask} like a photograph: the folders of '
                        'images and masks seem to be swapped, name them with --images and --masks')


def _flatness(file: Path) -> float:
    """Share of the pixels that equal their right neighbour; nan for what cannot be read."""
    try:
        with open_image(file) as image:
            values = np.asarray(image)
    except (OSError, SyntaxError, UserError):
        return float('nan')
    equal = values[:, 1:] == values[:, :-1]
    return float((equal if equal.ndim == 2 else equal.all(2)).mean()) if equal.size else float('nan')


def read_ids(file: Path) -> np.ndarray:
    """Values of a mask with one channel, (H, W) integers; of a palette image the indices, not the colours.

    Raises:
        UserError: the file has colours, values that are no integers, or more pixels than the limit; or it is a JPEG
            with more than two values.
        OSError, SyntaxError: it cannot be read.
    """
    with open_image(file) as image:
        if getattr(image, 'n_frames', 1) > 1:
            raise UserError(f'{file} has {image.n_frames} pages, expected one: save every page as a mask of its own')
        values, is_jpeg = np.asarray(image), image.format == 'JPEG'
    if values.ndim == 3:
        if np.ptp(values[..., :3], 2).max(initial=0) > (NEAR if is_jpeg else 0):
            raise UserError(f'{file} has colours, expected one channel of ids: convert it with --from rgb-masks and a '
                            'list of the colours')
        values = values[..., 0]
    if is_jpeg:
        return _two_values(values, file)
    if values.dtype.kind not in 'biu':
        raise UserError(f'{file} has values of type {values.dtype}, expected integers: write ids as 8 or 16 bit PNG')
    return values.astype(np.uint8) if values.dtype == bool else values


def _two_values(values: np.ndarray, file: Path) -> np.ndarray:
    """0 and 255 of a mask saved as a JPEG, whose compression gives pixels near edges other values."""
    if (values > NEAR).sum() > 2 * (values > 255 - NEAR).sum():  # half of a small object may be edge
        raise UserError(f'{file} is a JPEG with values other than 0 and 255; JPEG changes values, so that they name no '
                        'object or class: write masks as PNG')
    return np.where(values > 127, 255, 0).astype(np.uint8)


def _folders(root: Path, given: tuple[str, ...], known: tuple[str, ...], flag: str) -> list[Path]:
    if given:
        folders = [Path(name) if Path(name).is_dir() else root / name for name in given]
        for folder in folders:
            if not folder.is_dir():
                raise UserError(f'{flag} {folder}: no such folder')
        return folders
    found = [root / name for name in known if (root / name).is_dir() and image_files(root / name)]
    if len(found) != 1:
        what = ', '.join(path.name for path in found)
        raise UserError(f'{root} has ' + (f'several folders that may be meant ({what})' if found else
                                          f'no folder {", ".join(known)} with images') + f': name it with {flag}')
    return found


def _pairs_of(images: Path, masks: Path, skipped: Skipped) -> list[Pair]:
    by_stem: dict[str, list[tuple[Place, Path]]] = defaultdict(list)
    for file in image_files(images):
        by_stem[file.stem].append((_place(file, images), file))
    candidates: dict[Path, list[tuple[tuple[bool, bool], Path]]] = {}  # image -> its masks with how well they fit
    for mask in image_files(masks):
        found = _image_of(mask, _place(mask, masks), by_stem)
        if found is None:
            skipped.add('mask without an image', mask)
        else:
            candidates.setdefault(found[0], []).append((found[1], mask))
    pairs = []
    for image, fits in candidates.items():
        best = max(fit for fit, _ in fits)
        chosen = [mask for fit, mask in fits if fit == best]
        if len(chosen) > 1:
            raise UserError(f'{image} could have the mask {chosen[0]} or {chosen[1]}: keep one mask for each image')
        for _, mask in fits:
            if mask != chosen[0]:
                skipped.add('second mask of an image', mask)
        split = split_of(image, images) or split_of(chosen[0], masks)
        if split == 'test':
            skipped.add('image of a test split', image)
        else:
            pairs.append(Pair(image, chosen[0], split, image.relative_to(images).with_suffix('').as_posix()))
    for entries in by_stem.values():
        for _, image in entries:
            if image not in candidates:
                skipped.add('image without a mask', image)
    return sorted(pairs, key=lambda pair: pair.mask)


def _image_of(mask: Path, place: Place, by_stem: dict) -> tuple[Path, tuple[bool, bool]] | None:
    """The image of a mask, and whether folder and stem are equal: the stem, or that without endings after `_`."""
    stem = mask.stem
    while stem:
        near = [(other, image) for other, image in by_stem.get(stem, ()) if _is_near(place, other)]
        found = [entry for entry in near if entry[0] == place] or near
        if len(found) > 1:
            raise UserError(f'the mask {mask} could belong to {found[0][1]} or {found[1][1]}: put masks into the same '
                            'folders as their images, with one image for each name')
        if found:
            return found[0][1], (found[0][0] == place, stem == mask.stem)
        stem = stem.rpartition('_')[0]
    return None


def _is_near(first: Place, second: Place) -> bool:
    """Whether one place ends with the other: `train/camel` and `camel`, or anything and the folder itself."""
    shared = min(len(first), len(second))
    return first[len(first) - shared:] == second[len(second) - shared:]


def _place(file: Path, folder: Path) -> Place:
    return tuple(_split_name(part) or part for part in file.relative_to(folder).parts[:-1])


def _split_name(part: str) -> str | None:
    for suffix in ('', 'annot', '2012', '2017'):
        if part.lower().removesuffix(suffix) in SPLIT_NAMES:
            return SPLIT_NAMES[part.lower().removesuffix(suffix)]
    return None
