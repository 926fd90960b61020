"""The contract of a converted data set: its folder has a `dataset.json` that says everything a config needs.

Detection (COCO)                                   Segmentation (label PNGs)
  dataset.json                                       dataset.json
  annotations/instances_{train,val}.json             images/{train,val}/NAME<img_suffix>
  {train,val}/NAME.<its own suffix>                  annotations/{train,val}/NAME<seg_map_suffix>

Category names in the json files are `classes`, ids as in the source; label PNGs have one channel, uint8, with 0 to
n-1 for `classes` and `ignore_index` for pixels that belong to none (so `reduce_zero_label=False`).
"""
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import UserError

INFO_FILE = 'dataset.json'
SPLITS = ('train', 'val')
TASKS = ('det', 'seg')
COUNTED = {'det': 'objects', 'seg': 'pixels'}  # what `SplitInfo.counts` counts; its key in the file


@dataclass(frozen=True)
class SplitInfo:
    """The training or validation half of a data set; paths are relative to its folder.

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
    """What `dataset.json` holds.

    Args:
        task: 'det' or 'seg'.
        classes: names in the order of the model's outputs.
        palette: one [red, green, blue], 0 to 255, per class.
        splits: 'train' and 'val'.
        source: name of the format that it was converted from.
        has_masks: det: every object has a mask, so a mask head can be trained.
        ignore_index: seg: label of pixels that count for nothing.
        img_suffix: seg: the one suffix of all images, with its dot.
        seg_map_suffix: seg: the one suffix of all label maps.
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

    def write(self, folder) -> None:
        """Write `dataset.json` into `folder`, complete or not at all."""
        content = {key: value for key, value in asdict(self).items() if value is not None and key != 'splits'}
        content['splits'] = {}
        for name, split in self.splits.items():
            record = {key: value for key, value in asdict(split).items() if value is not None}
            record[COUNTED[self.task]] = record.pop('counts')
            content['splits'][name] = record
        file = Path(folder, INFO_FILE)
        part = file.with_name(f'{INFO_FILE}.part')
        part.write_text(json.dumps(content, indent=1) + '\n')
        os.replace(part, file)

    @classmethod
    def read(cls, folder) -> 'DatasetInfo':
        """Read the `dataset.json` of a folder.

        Raises:
            UserError: there is none, or it is not what tools/convert_dataset.py writes.
        """
        file = Path(folder, INFO_FILE)
        try:
            content = json.loads(file.read_text())
        except OSError:
            raise UserError(f'{folder} is no converted data set, since it has no {INFO_FILE}: '
                            'make one with tools/convert_dataset.py') from None
        except ValueError as error:
            raise UserError(f'{file} could not be read as JSON ({error}): convert the data set again') from None
        try:
            splits = {name: _read_split(record, content['task']) for name, record in content.pop('splits').items()}
            info = cls(splits=splits, **content)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f'{file} is not as tools/convert_dataset.py writes it ({type(error).__name__}: {error}): '
                            'convert the data set again') from None
        if info.task not in TASKS or set(splits) != set(SPLITS):
            raise UserError(f'{file}: expected task det or seg and splits train and val, found {info.task!r} and '
                            f'{", ".join(splits) or "none"}; convert the data set again')
        return info


def _read_split(record: dict, task: str) -> SplitInfo:
    return SplitInfo(counts=record.pop(COUNTED[task]), **record)
