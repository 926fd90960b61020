"""The format of a converted data set: a folder whose `dataset.json` has everything that a config needs.

Detection (COCO)                                   Segmentation (label PNGs)
  dataset.json                                       dataset.json
  annotations/instances_{train,val}.json             images/{train,val}/NAME<img_suffix>
  {train,val}/NAME.<its own suffix>                  annotations/{train,val}/NAME<seg_map_suffix>

Category names in the json files are `classes`, ids as in the source; label PNGs have one channel, uint8, with 0 to
n-1 for `classes` and `ignore_index` for pixels of no class (so `reduce_zero_label=False`).
"""
import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from reprlib import repr as short_repr

from ..errors import UserError
from ..utils.files import atomic_write
from .json_values import is_integer, is_number

INFO_FILE = 'dataset.json'
SPLITS = ('train', 'val')
TASKS = ('det', 'seg')
COUNTED = {'det': 'objects', 'seg': 'pixels'}  # what `SplitInfo.counts` counts; its key in the file
BREAKS = {'Cc', 'Cs', 'Zl', 'Zp'}  # Unicode: control characters, lone surrogates, line and paragraph separators


@dataclass(frozen=True)
class SplitInfo:
    """The training or validation part of a data set; paths are relative to its folder and stay inside it.

    Args:
        images: number of images, those without objects included.
        counts: class name -> number of objects (det, crowds included) or pixels (seg).
        img_prefix: folder of the images, ends in '/'.
        ann_file: det: the COCO json file.
        seg_prefix: seg: folder of the label PNGs, ends in '/'.
    """
    images: int
    counts: dict[str, int]
    img_prefix: str
    ann_file: str | None = None
    seg_prefix: str | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """The content of `dataset.json`.

    Args:
        task: 'det' or 'seg'.
        classes: names in the order of the model's outputs.
        palette: one [red, green, blue], 0 to 255, per class.
        splits: 'train' and 'val'.
        source: name of the format that it was converted from.
        has_masks: det: every object has a mask, so a mask head can be trained.
        ignore_index: seg: label of pixels that are ignored, 0 to 255.
        img_suffix: seg: the one suffix of all images, with its dot.
        seg_map_suffix: seg: the one suffix of all label maps.
        value_range: [low, high], the values of the images that become 0 and 255 when they are read, where a value has
            more than 8 bits (`utils.image_values`).
    """
    task: str
    classes: list[str]
    palette: list[list[int]]
    splits: dict[str, SplitInfo]
    source: str
    has_masks: bool | None = None
    ignore_index: int | None = None
    img_suffix: str | None = None
    seg_map_suffix: str | None = None
    value_range: list[float] | None = None

    def write(self, folder) -> None:
        """Write `dataset.json` into `folder`."""
        content = {key: value for key, value in vars(self).items() if value is not None and key != 'splits'}
        content['splits'] = {}
        for name, split in self.splits.items():
            record = {key: value for key, value in vars(split).items() if value is not None}
            record[COUNTED[self.task]] = record.pop('counts')
            content['splits'][name] = record
        with atomic_write(Path(folder, INFO_FILE)) as part:
            part.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')

    @classmethod
    def read(cls, folder) -> 'DatasetInfo':
        """Read the `dataset.json` of a folder, and check the type and range of every value.

        Raises:
            UserError: there is none, or it is not what tools/convert_dataset.py writes.
        """
        file = Path(folder, INFO_FILE)
        try:
            content = json.loads(file.read_text(encoding='utf-8'))
        except OSError:
            raise UserError(f'{folder} is no converted data set, since it has no {INFO_FILE}: '
                            'make one with tools/convert_dataset.py') from None
        except (ValueError, RecursionError) as error:
            raise UserError(f'{file} could not be read as JSON ({error}): convert the data set again') from None
        try:
            return _dataset_info(content)
        except ValueError as error:
            raise UserError(f'{file} is not as tools/convert_dataset.py writes it ({error}): convert the data set '
                            'again') from None


def is_class_name(name: str) -> bool:
    """Whether a name is one line of text."""
    return bool(name.strip()) and _is_line(name)


def check_class_names(names: list[str]) -> None:
    """Refuse names that cannot be printed on one line or told apart.

    Raises:
        ValueError: names the class.
    """
    for name in names:
        if not is_class_name(name):
            raise ValueError(f'the class name {short_repr(name)} is empty or has a line break or control character, '
                             'expected one line of text')
    if len(set(names)) < len(names):
        seen = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise ValueError(f'two classes are named {short_repr(twice)}')


def _dataset_info(content) -> DatasetInfo:
    task = _value(content, 'task', lambda value: value in TASKS, 'det or seg')
    classes = _value(content, 'classes', _are(str), 'a list of names')
    check_class_names(classes)
    palette = _value(content, 'palette', lambda value: isinstance(value, list) and len(value) == len(classes)
                     and all(map(_is_colour, value)), f'{len(classes)} lists of three numbers from 0 to 255')
    splits = _value(content, 'splits', lambda value: isinstance(value, dict) and set(value) == set(SPLITS),
                    'train and val')
    source = _value(content, 'source', lambda value: isinstance(value, str), 'the name of a format')
    if task == 'det':
        own = {'has_masks': _value(content, 'has_masks', lambda value: isinstance(value, bool), 'true or false')}
    else:
        own = {'ignore_index': _value(content, 'ignore_index', _is_byte, 'a number from 0 to 255'),
               'img_suffix': _value(content, 'img_suffix', _is_suffix, 'a suffix such as .jpg'),
               'seg_map_suffix': _value(content, 'seg_map_suffix', _is_suffix, 'a suffix such as .png')}
    if 'value_range' in content:
        own['value_range'] = _value(content, 'value_range', _is_range, 'two numbers, the first below the second')
    _check_keys(content, {'task', 'classes', 'palette', 'splits', 'source', *own})
    splits = {name: _split_info(splits[name], task, set(classes)) for name in SPLITS}
    return DatasetInfo(task, classes, palette, splits, source, **own)


def _split_info(record, task: str, classes: set[str]) -> SplitInfo:
    images = _value(record, 'images', lambda value: is_integer(value) and value >= 0, 'a number of images')
    counts = _value(record, COUNTED[task], lambda value: isinstance(value, dict) and set(value) == classes
                    and all(is_integer(count) and count >= 0 for count in value.values()), 'a number for each class')
    own = 'ann_file' if task == 'det' else 'seg_prefix'
    paths = {key: _value(record, key, _is_inner_path, 'a path inside the folder') for key in ('img_prefix', own)}
    _check_keys(record, {'images', COUNTED[task], *paths})
    return SplitInfo(images, counts, **paths)


def _value(record, key: str, fits: Callable[[object], bool], expected: str):
    """``record[key]``, which must be there and fit."""
    if not isinstance(record, dict):
        raise ValueError(f'found {short_repr(record)}, expected an object with {key}')
    if key not in record:
        raise ValueError(f'it has no {key}, expected {expected}')
    if not fits(record[key]):
        raise ValueError(f'{key} is {short_repr(record[key])}, expected {expected}')
    return record[key]


def _check_keys(record: dict, known: set[str]) -> None:
    if not record.keys() <= known:
        raise ValueError(f'it has the unknown key {short_repr(min(record.keys() - known))}')


def _are(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and len(value) > 0 and all(isinstance(entry, kind) for entry in value)


def _is_byte(value) -> bool:
    return is_integer(value) and 0 <= value <= 255


def _is_colour(value) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_byte, value))


def _is_range(value) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]


def _is_line(value) -> bool:
    return (isinstance(value, str) and value != ''
            and not any(unicodedata.category(character) in BREAKS for character in value))


def _is_suffix(value) -> bool:
    return _is_line(value) and value.startswith('.') and '/' not in value and '\\' not in value


def _is_inner_path(value) -> bool:
    return _is_line(value) and not PurePath(value).is_absolute() and '..' not in PurePath(value).parts
