"""Before anything is written: read every annotation once, leave out what cannot be used, split, and name."""
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import UserError
from ..layout import SPLITS
from .pairs import IMAGE_SUFFIXES
from .source import Sample, Skipped, Source
from .splitting import stratified_split

Progress = Callable[[str, int, int], None]  # called with (what, done, total)
DEFAULT_SPLIT = 0.8


@dataclass
class Planned:
    """A sample with its split, the name (without suffix) of its files, and its size (width, height) in pixels."""
    sample: Sample
    split: str
    name: str
    size: tuple[int, int]


def plan(source: Source, split: float | None, seed: int, progress: Progress) -> list[Planned]:
    """Decide what becomes of every sample. What is left out is added to `source.skipped`.

    Args:
        source: what a format's `open_source` returned.
        split: share of training images; None keeps the source's own splits, or takes 0.8 where it lacks one.
        seed: of the split.
        progress: called after each image.

    Raises:
        UserError: nothing is left.
    """
    kept, labels, sizes = [], [], []
    for done, sample in enumerate(source.samples, 1):
        size = _image_size(sample, source.skipped)
        if size is not None:
            annotation = sample.load(source.skipped.add)
            if source.task == 'seg' and annotation.shape[::-1] != size:
                source.skipped.add('label map of another size than its image', sample.image)
            else:
                kept.append(sample)
                labels.append(_labels_in(annotation))
                sizes.append(size)
        progress('reading', done, len(source.samples))
    if not kept:
        reasons = '; '.join(f'{count} x {reason}, first {first}'
                            for reason, (count, first) in source.skipped.reasons.items())
        raise UserError(f'no image of the source can be used: {reasons or "it has none"}')
    splits = [sample.split for sample in kept]
    if split is not None or set(splits) != set(SPLITS):
        if split is None:
            source.notes.append(f'the source lacks train or val: {DEFAULT_SPLIT:.0%} are for training, seed {seed}')
        splits = stratified_split(labels, DEFAULT_SPLIT if split is None else split, seed)
    return [Planned(*entry) for entry in zip(kept, splits, _unique_names(kept), sizes, strict=True)]


def common_suffix(planned: list[Planned]) -> tuple[str, set[str]]:
    """The suffix that all images can have in a layout that wants one, and the suffixes that must be re-encoded.

    Suffixes of one format (.JPG, .jpeg) are one; several formats become PNG, which keeps every pixel.
    """
    found = Counter(normal_suffix(entry.sample.image) for entry in planned)
    if len(found) == 1:
        return next(iter(found)), set()
    return '.png', set(found) - {'.png'}


def normal_suffix(file: Path) -> str:
    """A file's suffix in small letters, .jpg for .jpeg and .tif for .tiff."""
    suffix = file.suffix.lower()
    return {'.jpeg': '.jpg', '.tiff': '.tif'}.get(suffix, suffix)


def _image_size(sample: Sample, skipped: Skipped) -> tuple[int, int] | None:
    if sample.image.suffix.lower() not in IMAGE_SUFFIXES:
        skipped.add(f'no image suffix ({", ".join(IMAGE_SUFFIXES)})', sample.image)
        return None
    try:
        with Image.open(sample.image) as image:
            return image.size
    except FileNotFoundError:
        skipped.add('image does not exist', sample.image)
    except Exception:  # PIL's readers fail in many ways; the finding is the same
        skipped.add('image cannot be read', sample.image)
    return None


def _labels_in(annotation) -> set[int]:
    if isinstance(annotation, np.ndarray):
        return set(np.flatnonzero(np.bincount(annotation.ravel(), minlength=256)[:255]).tolist())
    return {entry['category_id'] for entry in annotation}


def _unique_names(samples: list[Sample]) -> list[str]:
    """Stems; where a stem comes twice, the folders that differ are put before it, then a number after it."""
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
