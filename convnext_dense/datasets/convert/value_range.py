"""The range by which the images of a data set with more than 8 bits a value become 8 bits; measured once, for all."""
from pathlib import Path

import numpy as np

from ...errors import UserError, few
from ...utils.image_values import read_values

PERCENTILES = (0.1, 99.9)  # of all values: single hot or dead pixels do not set the range
SAMPLED = 10_000_000  # values of all images together
FEWEST = 1000  # values of each image


def find_range(images: list[tuple[Path, str]], how: str, notes: list[str]) -> list[float] | None:
    """(low, high) for the deep images of a set, None if it has none.

    Args:
        images: file, and type of its values (`utils.images.ImageHeader.values`).
        how: 'percentiles' (`PERCENTILES` of all values), 'full' (the smallest and the largest value), or 'LOW,HIGH'.
        notes: gets a sentence that states the range.

    Raises:
        UserError: the types differ, all values are equal, or `how` is none of these.
    """
    kinds = {kind: file for file, kind in images if kind != 'uint8'}
    if not kinds:
        return None
    if len(kinds) > 1:
        (first, file), (second, other) = list(kinds.items())[:2]
        raise UserError(f'{file} has values of type {first} and {other} of type {second}: bring all images to one '
                        'type, since one range is for all of them')
    deep = [file for file, kind in images if kind != 'uint8']
    low, high = _measured(deep, how) if how in ('percentiles', 'full') else _given(how)
    if not low < high:
        raise UserError(f'all values of {few(deep, 2)} are {low:g}: give the range with --value-range LOW,HIGH')
    meaning = {'percentiles': f'the {PERCENTILES[0]} and {PERCENTILES[1]} percentiles of all values',
               'full': 'the smallest and the largest value'}.get(how, 'as given')
    notes.append(f'{len(deep)} images have {next(iter(kinds))} values: {low:g} to {high:g} ({meaning}) become 0 to 255 '
                 'whenever they are read; --value-range sets another range')
    if len(deep) < len(images):
        notes.append(f'{len(images) - len(deep)} images have 8 bits a value and are read as they are')
    return [low, high]


def _measured(files: list[Path], how: str) -> tuple[float, float]:
    sampled, extremes = [], []
    for file in files:
        values = read_values(file.read_bytes())
        if values is None:
            raise UserError(f'{file} cannot be decoded: repair it, or remove it from the data set')
        values = values[np.isfinite(values)] if values.dtype.kind == 'f' else values.ravel()
        if values.size:
            extremes += [values.min(), values.max()]
            sampled.append(values[::max(1, values.size // max(FEWEST, SAMPLED // len(files)))])
    if not sampled:
        raise UserError(f'{few(files, 2)} have no finite value: remove them from the data set')
    if how == 'full':
        return float(min(extremes)), float(max(extremes))
    low, high = np.percentile(np.concatenate(sampled), PERCENTILES)
    return float(low), float(high)


def _given(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(','))
    except ValueError:
        raise UserError(f'--value-range {text}: expected percentiles, full, or two numbers as 0,4095') from None
    if not low < high:
        raise UserError(f'--value-range {text}: expected the lower value first')
    return low, high
