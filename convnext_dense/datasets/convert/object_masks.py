"""A folder per image with a mask file per object, as in the Data Science Bowl 2018 (DSB 2018)."""
from functools import partial
from pathlib import Path

from ...errors import UserError
from .class_files import read_classes
from .objects import mask_annotation, of_image_size
from .pairs import image_files, read_ids, split_of
from .source import Options, Sample, Skipped, Source, UnusableAnnotation, numbered


def detect(root: Path) -> bool:
    """Folders with images/ and masks/ in each."""
    return root.is_dir() and bool(_folders(root))


def open_source(root: Path, options: Options) -> Source:
    """One class, `--classes NAME`; objects may overlap.

    Raises:
        UserError: no such folders, or not one class.
    """
    folders, skipped = _folders(root), Skipped()
    if not folders:
        raise UserError(f'{root} has no folders with images/ and masks/ in each')
    entries = read_classes(options.classes, root) if options.classes else []
    if len(entries) != 1:
        raise UserError(f'masks of single objects do not say their class: found {len(entries) or "no"} class names, '
                        'expected --classes with one name')
    samples = []
    for folder in folders:
        images = image_files(folder / 'images')
        split = split_of(folder, root)
        if split == 'test':
            skipped.add('image of a test split', images[0])
            continue
        if len(images) > 1:
            raise UserError(f'{folder / "images"} has {len(images)} images, expected the one that its masks belong to')
        samples.append(Sample(images[0], partial(_annotations, images[0], folder / 'masks'), split))
    return Source('det', numbered([entries[0].name]), samples, skipped=skipped)


def _folders(root: Path) -> list[Path]:
    """Below the source or one folder deeper (`stage1_train`); masks lie in `masks/`, one image in `images/`."""
    return sorted(folder.parent for pattern in ('*/masks', '*/*/masks') for folder in root.glob(pattern)
                  if image_files(folder.parent / 'images'))


def _annotations(image: Path, folder: Path, skip) -> list[dict]:
    annotations = []
    for file in image_files(folder):
        try:
            mask = read_ids(file) != 0
            annotations.append(mask_annotation(1, mask))
        except (OSError, SyntaxError):
            skip('mask that cannot be read', file)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            skip(str(error), file)
    shapes = {tuple(annotation['segmentation']['size']) for annotation in annotations}
    if len(shapes) > 1:
        raise UnusableAnnotation(f'masks of several sizes, {" and ".join(map(str, sorted(shapes)))}',
                                 len(annotations))
    return of_image_size(annotations, image)
