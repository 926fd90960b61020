"""YOLO's data.yaml: class names, and where the images of each split are. Small, flat files only."""
import os
from pathlib import Path
from reprlib import repr as short_repr

import yaml

from ...errors import UserError
from .pairs import SPLIT_NAMES, image_files

MAX_BYTES = 2**20  # a data.yaml with 20,000 class names has half of it
MAX_DEPTH = 20  # of nested lists and objects; a data.yaml has 2
_Loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


def yaml_file(root: Path) -> Path | None:
    """The first yaml file of a folder that has class names, or a data.yaml that cannot be read."""
    for file in sorted([*root.glob('*.yaml'), *root.glob('*.yml')]):
        try:
            if 'names' in _read(file):
                return file
        except UserError:
            if file.stem == 'data':
                return file
    return None


def read_yaml(file: Path, folder: Path) -> tuple[list[str], list[tuple[Path, str]]]:
    """Class names, and (image, split) of every image that the file names.

    Args:
        file: the yaml file.
        folder: of the data set.

    Raises:
        UserError: it is no data.yaml, is too large, or names a folder that is not there.
    """
    content = _read(file)
    names, base = _names(content.get('names'), file), content.get('path') or ''
    listed = []
    for key, split in SPLIT_NAMES.items():
        entries = content.get(key) or []
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in (*entries, base)):
            raise _unfit(file, f'{key} is {short_repr(entries)}')
        for entry in entries:
            listed += [(image, split) for image in _listed_images(file, folder, base, entry)]
    return names, listed


def keypoint_numbers(file: Path) -> int:
    """How many numbers of keypoints follow the box in a line of a label file, by ``kpt_shape`` (keypoints, 2 or 3).

    Raises:
        UserError: it is something else.
    """
    shape = _read(file).get('kpt_shape')
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(isinstance(each, int) and each > 0 for each in shape):
        raise _unfit(file, f'kpt_shape is {short_repr(shape)}')
    return shape[0] * shape[1]


def _read(file: Path) -> dict:
    """The content of a yaml file, without what makes small files large: aliases, and deep nesting."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise _unfit(file, f'it has more than {MAX_BYTES:,} bytes')
        text = file.read_text(encoding='utf-8-sig')
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                raise _unfit(file, 'it has an alias (*name)')
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _unfit(file, f'it is nested more than {MAX_DEPTH} deep')
        content = yaml.load(text, Loader=_Loader)  # both loaders are safe ones
    except UserError:
        raise
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise _unfit(file, ' '.join(str(error).split())) from None
    if not isinstance(content, dict):
        raise _unfit(file, f'it is {short_repr(content)}')
    return content


def _names(names, file: Path) -> list[str]:
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise _unfit(file, f'the numbers of its names are not 0 to {len(names) - 1}')
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, (str, int, float)) for name in names):
        raise _unfit(file, f'its names are {short_repr(names)}')
    return [str(name) for name in names]


def _listed_images(file: Path, folder: Path, base: str, entry: str) -> list[Path]:
    """Images of a folder, or of a text file that lists them; `path` may be missing, relative or outdated."""
    for place in (folder / base / entry, folder / entry, folder / entry.removeprefix('../'), Path(base) / entry):
        if os.path.isdir(place):  # False also for a name that no folder can have
            return image_files(place)
        if place.suffix == '.txt' and os.path.isfile(place):
            lines = place.read_text(encoding='utf-8', errors='replace').splitlines()
            return [place.parent / line.strip() for line in lines if line.strip()]
    raise UserError(f'{file}: {short_repr(entry)} is neither a folder nor a text file below {folder}: correct its path')


def _unfit(file: Path, reason: str) -> UserError:
    return UserError(f'{file} could not be read as a YOLO data.yaml ({reason}): expected names (a list, or an object '
                     'with numbers from 0), train and val')
