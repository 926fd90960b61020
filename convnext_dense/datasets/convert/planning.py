"""Before anything is written: read every annotation once, leave out what cannot be used, split, and name."""
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ...errors import UserError
from ...utils.images import IMAGE_SUFFIXES, ImageHeader, OversizedImageError, max_pixels, read_header
from ...utils.progress import progress_bar
from ..layout import SPLITS, check_class_names
from .source import Sample, Skipped, Source, UnusableAnnotation
from .splitting import stratified_split

DEFAULT_SPLIT = 0.8
LOST = 'object of an image that was left out'
REWRITTEN = {'.gif'}  # as PNG: OpenCV before 4.11 reads no GIF


@dataclass
class PlannedSample:
    """A sample with what was found out about it.

    Args:
        sample: of the source.
        split: 'train' or 'val'.
        name: of its files, without suffix.
        size: width and height in pixels.
        values: type of the image's values (`utils.images.ImageHeader`).
        objects: their number, for detection.
    """
    sample: Sample
    split: str
    name: str
    size: tuple[int, int]
    values: str = 'uint8'
    objects: int = 0


def plan_samples(source: Source, split: float | None, seed: int) -> list[PlannedSample]:
    """Decide split and name of every sample. What is left out is added to `source.skipped`.

    Args:
        source: from a format's `open_source`.
        split: share of training images; None keeps the splits of the source, or takes 0.8 if it lacks one.
        seed: of the split.

    Raises:
        UserError: a class name that cannot be used, or no image is left.
    """
    try:
        check_class_names(source.classes)
    except ValueError as error:
        raise UserError(f'{error}: rename it in the source') from None
    kept, labels, facts = [], [], []
    with progress_bar('images read', len(source.samples), 'image') as bar:
        for sample in source.samples:
            header = _image_header(sample, source.skipped)
            annotation = None if header is None else _annotation(sample, (header.width, header.height), source)
            if annotation is not None:
                kept.append(sample)
                labels.append(_labels_in(annotation))
                facts.append(((header.width, header.height), header.values, len(annotation)))
            else:
                _count_lost_objects(sample, source)
            bar.update()
    if source.verify is not None:
        source.verify(source)
    if not kept:
        reasons = '; '.join(f'{count} x {reason}, first {first}'
                            for reason, (count, first) in source.skipped.reasons.items())
        raise UserError(f'no image of the source can be used: {reasons or "it has none"}')
    splits = [sample.split for sample in kept]
    if not source.single and (split is not None or set(splits) != set(SPLITS)):
        if split is None:
            source.notes.append(f'the source lacks train or val: {DEFAULT_SPLIT:.0%} are for training, seed {seed}')
        splits = stratified_split(labels, DEFAULT_SPLIT if split is None else split, seed)
    return [PlannedSample(sample, part, name, *found)
            for sample, part, name, found in zip(kept, splits, _unique_names(kept), facts, strict=True)]


def common_suffix(planned: list[PlannedSample]) -> tuple[str, set[str]]:
    """The suffix that all images can have in a layout with one suffix, and the suffixes that must be re-encoded.

    Suffixes of one format (.JPG, .jpeg) are one; several formats become PNG, which keeps every pixel.
    """
    found = Counter(normal_suffix(entry.sample.image) for entry in planned)
    if len(found) == 1 and not set(found) & REWRITTEN:
        return next(iter(found)), set()
    deep = next((entry.sample.image for entry in planned if entry.values != 'uint8'), None)
    if deep is not None:
        raise UserError(f'{deep} has more than 8 bits a value, and the images have several formats '
                        f'({", ".join(sorted(found))}): save all in one format, as segmentation sets need')
    return '.png', set(found) - {'.png'}


def normal_suffix(file) -> str:
    """A file's suffix in lower case, .jpg for .jpeg and .tif for .tiff."""
    suffix = file.suffix.lower()
    return {'.jpeg': '.jpg', '.tiff': '.tif'}.get(suffix, suffix)


def _image_header(sample: Sample, skipped: Skipped) -> ImageHeader | None:
    if sample.image.suffix.lower() not in IMAGE_SUFFIXES:
        skipped.add(f'no image suffix ({", ".join(IMAGE_SUFFIXES)})', sample.image)
        return None
    try:
        header = read_header(sample.image)
        if header.problem is None:
            return header
        skipped.add(f'image with {header.problem}', sample.image)
    except FileNotFoundError:
        skipped.add('image does not exist', sample.image)
    except OversizedImageError:
        skipped.add(_oversized('image'), sample.image)
    except UserError:
        raise
    except Exception:  # PIL's readers fail in many ways; the finding is the same
        skipped.add('image cannot be read', sample.image)
    return None


def _annotation(sample: Sample, size: tuple[int, int], source: Source):
    """What `sample.load` returns, None if it cannot be used."""
    try:
        annotation = sample.load(source.skipped.add)
    except OversizedImageError:
        source.skipped.add(_oversized('mask'), sample.image)
        return None
    except UnusableAnnotation as error:
        source.skipped.add(str(error), sample.image)
        if error.objects:
            source.skipped.add(LOST, sample.image, error.objects)
        return None
    except (OSError, SyntaxError):  # from PIL; a UserError is about all masks
        source.skipped.add('annotation or mask cannot be read', sample.image)
        return None
    if source.task == 'seg' and annotation.shape[::-1] != size:
        source.skipped.add('label map of another size than its image', sample.image)
        return None
    return annotation


def _count_lost_objects(sample: Sample, source: Source) -> None:
    """Count the objects of an image that is left out, where its annotation can be read."""
    if source.task == 'det':
        try:
            objects = len(sample.load(lambda *_: None))
        except (OSError, SyntaxError, UserError, UnusableAnnotation):
            return
        if objects:
            source.skipped.add(LOST, sample.image, objects)


def _oversized(what: str) -> str:
    return f'{what} with more than {max_pixels():,} pixels (CONVNEXT_DENSE_MAX_PIXELS)'


def _labels_in(annotation) -> set[int]:
    if isinstance(annotation, np.ndarray):
        return set(np.flatnonzero(np.bincount(annotation.ravel(), minlength=256)[:255]).tolist())
    return {entry['category_id'] for entry in annotation}


def _unique_names(samples: list[Sample]) -> list[str]:
    """Stems; a stem that comes twice gets the name of its folder before it, then a number behind it."""
    times = Counter(sample.image.stem.casefold() for sample in samples)
    names, taken = [], set()
    for sample in samples:
        stem = sample.image.stem
        name = stem if times[stem.casefold()] == 1 else f'{sample.image.parent.name}-{stem}'
        unique, number = name, 2
        while unique.casefold() in taken:
            unique, number = f'{name}-{number}', number + 1
        taken.add(unique.casefold())
        names.append(unique)
    return names
