"""Images and the mask files that belong to them, found by folder and file name."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import UserError
from .source import Options, Skipped

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
IMAGE_FOLDERS = ('images', 'JPEGImages', 'PNGImages', 'image', 'imgs', 'img')
MASK_FOLDERS = ('masks', 'PedMasks', 'labels', 'annotations', 'SegmentationClass', 'SegmentationObject', 'mask',
                'label', 'annotation', 'gt')
SPLIT_NAMES = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val',
               'test': 'test', 'testing': 'test'}


@dataclass(frozen=True)
class Pair:
    """An image, its mask, and the split that the folder names say ('train', 'val' or None)."""
    image: Path
    mask: Path
    split: str | None


def image_files(folder: Path) -> list[Path]:
    """All image files below a folder, sorted; hidden files are left out."""
    return sorted(file for file in folder.rglob('*')
                  if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith('.'))


def split_of(file: Path, folder: Path) -> str | None:
    """'train', 'val', 'test' or None, from the folders between `folder` (included) and the file."""
    for part in (*file.relative_to(folder).parts[:-1], folder.name):
        for suffix in ('', 'annot', '2012', '2017'):
            if part.lower().removesuffix(suffix) in SPLIT_NAMES:
                return SPLIT_NAMES[part.lower().removesuffix(suffix)]
    return None


def mask_folders(root: Path) -> list[Path]:
    """Folders of a source that by their name may hold masks, and do hold images."""
    return [root / name for name in MASK_FOLDERS if (root / name).is_dir() and image_files(root / name)]


def find_pairs(root: Path, options: Options, skipped: Skipped) -> list[Pair]:
    """Pairs of image and mask: the same stem, or the mask's begins with the image's (`a.jpg`, `a_mask.png`).

    Raises:
        UserError: no folder of images or of masks, more than one that may be meant, or no pair at all.
    """
    folders = list(zip(_folders(root, options.images, IMAGE_FOLDERS, '--images'),
                       _folders(root, options.masks, MASK_FOLDERS, '--masks'), strict=False))
    if options.images and len(options.images) != len(options.masks or options.images):
        raise UserError(f'--images names {len(options.images)} folders and --masks {len(options.masks)}: give as many')
    pairs = []
    for images, masks in folders:
        pairs += _pairs_of(images, masks, skipped)
    if not pairs:
        raise UserError(f'no image of {", ".join(str(i) for i, _ in folders)} has a mask in '
                        f'{", ".join(str(m) for _, m in folders)}: expected the image\'s name, or that and an ending '
                        'such as _mask')
    return pairs


def read_ids(file: Path) -> np.ndarray:
    """Values of a mask with one channel, (H, W); of a palette image the indices, not the colours.

    Raises:
        UserError: the file has colours.
        OSError: it cannot be read.
    """
    with Image.open(file) as image:
        values = np.asarray(image)
    if values.ndim == 3:
        if (values[..., :3] != values[..., :1]).any():
            raise UserError(f'{file} has colours, expected one channel of ids: convert it with --from rgb-masks and a '
                            'list of the colours')
        values = values[..., 0]
    return values.astype(np.uint8) if values.dtype == bool else values


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
    by_key = {(split_of(file, images), file.stem): file for file in image_files(images)}
    files = image_files(masks)
    pairs, used = [], set()
    for mask in files:
        key = _image_key(split_of(mask, masks), mask.stem, by_key)
        if key is None:
            skipped.add('mask without an image', mask)
        elif key in used:
            skipped.add('second mask of an image', mask)
        elif key[0] == 'test':
            skipped.add('image of a test split', by_key[key])
        else:
            pairs.append(Pair(by_key[key], mask, key[0]))
        used.add(key)
    for key in by_key.keys() - used:
        skipped.add('image without a mask', by_key[key])
    return pairs


def _image_key(split: str | None, stem: str, images: dict) -> tuple | None:
    """The key of the image whose stem is `stem`, or `stem` without one or more endings after `_`."""
    while stem:
        if (split, stem) in images:
            return split, stem
        stem = stem.rpartition('_')[0]
    return None
