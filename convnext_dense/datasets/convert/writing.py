"""Writes a planned data set as COCO json or as label PNGs, one image at a time."""
import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from ...utils.files import place, written_whole
from ...utils.images import open_image
from ...utils.progress import progress_bar
from ...visualization.draw import IGNORED, distinct_colours
from ..json_values import is_integer
from ..layout import SPLITS, DatasetInfo, SplitInfo
from .planning import REWRITTEN, PlannedSample, common_suffix, normal_suffix
from .source import Source


def write_dataset(out: Path, source: Source, planned: list[PlannedSample], source_name: str, link: str,
                  value_range: list[float] | None = None) -> DatasetInfo:
    """Write the data set to `out`, all of it or nothing, and return the content of its dataset.json.

    Args:
        out: the folder; an existing one is replaced.
        source: from a format's `open_source`.
        planned: from `plan_samples`.
        source_name: of the format.
        link: 'copy', 'hardlink' or 'symlink': how images get into the folder.
        value_range: of images with more than 8 bits a value, from `find_range`.
    """
    with written_whole(out) as part:
        write = write_coco if source.task == 'det' else _write_labels
        palette = source.palette or [list(colour) for colour in distinct_colours(len(source.categories))]
        info = DatasetInfo(source.task, source.classes, palette, source=source_name, value_range=value_range,
                           **write(part, source, planned, link))
        info.write(part)
    return info


def write_coco(root: Path, source: Source, planned: list[PlannedSample], link: str) -> dict:
    """Write COCO json and images into a folder; returns what dataset.json says about them."""
    splits = ('train',) if source.single else SPLITS
    files = {split: _CocoFile(root, split, source.categories) for split in splits}
    with progress_bar('images written', len(planned), 'image') as bar:
        for entry in planned:
            files[entry.split].add(entry, put_image(entry, root / entry.split, link).name)
            bar.update()
    splits = {split: file.close() for split, file in files.items()}
    masks, objects = (sum(values) for values in zip(*((file.masks, len(file.ids)) for file in files.values()),
                                                    strict=True))
    if 0 < masks < objects:
        source.notes.append(f'{objects - masks} of {objects} objects have no mask: the data set counts as boxes only, '
                            'since a mask head needs a mask of every object')
    return {'splits': splits, 'has_masks': masks == objects}


def put_image(entry: PlannedSample, folder: Path, link: str) -> Path:
    """Place a sample's image in a folder, GIFs as PNG; returns its path."""
    suffix = entry.sample.image.suffix.lower()
    target = folder / (entry.name + ('.png' if suffix in REWRITTEN else suffix))
    _put(entry.sample.image, target, link, suffix in REWRITTEN)
    return target


def _put(image: Path, target: Path, link: str, rewrite: bool) -> None:
    """Place an image, or write it in the format of the target's suffix."""
    if not rewrite:
        return place(image, target, link)
    with open_image(image) as opened:
        opened.save(target, exif=opened.getexif())


class _CocoFile:
    """One split's json, written annotation by annotation so that no more than one image's are in memory."""

    def __init__(self, root: Path, split: str, categories: list[dict]):
        (root / split).mkdir()
        (root / 'annotations').mkdir(exist_ok=True)
        self.split, self.ann_file = split, f'annotations/instances_{split}.json'
        self.file = (root / self.ann_file).open('w')
        self.file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
        self.names = {category['id']: category['name'] for category in categories}
        self.counts = dict.fromkeys(self.names.values(), 0)
        self.images, self.image_ids, self.ids = [], _Ids(), _Ids()
        self.masks = 0

    def add(self, entry: PlannedSample, file_name: str) -> None:
        """Append an image and its annotations."""
        image_id = self.image_ids.take(entry.sample.record.get('id'))
        size = {key: value if not is_integer(entry.sample.record.get(key)) else entry.sample.record[key]
                for key, value in zip(('width', 'height'), entry.size, strict=True)}
        self.images.append({**size, **entry.sample.record, **size, 'id': image_id, 'file_name': file_name})
        for annotation in entry.sample.load(lambda *_: None):
            separator = ',\n' if len(self.ids) else '\n'
            record = {**annotation, 'id': self.ids.take(annotation.get('id')), 'image_id': image_id}
            self.file.write(separator + json.dumps(record))
            self.counts[self.names[annotation['category_id']]] += 1
            self.masks += bool(annotation.get('segmentation'))

    def close(self) -> SplitInfo:
        """Write the images and close the file."""
        self.file.write(f'],\n"images": {json.dumps(self.images)}}}\n')
        self.file.close()
        return SplitInfo(len(self.images), self.counts, f'{self.split}/', ann_file=self.ann_file)


class _Ids:
    """Ids of a file: the wanted one where it is free, else the next free one from 1."""

    def __init__(self):
        self.taken, self.next = set(), 1

    def __len__(self) -> int:
        return len(self.taken)

    def take(self, wanted: int | None) -> int:
        """An id that is not taken yet."""
        if not is_integer(wanted) or wanted in self.taken:
            while self.next in self.taken:
                self.next += 1
            wanted = self.next
        self.taken.add(wanted)
        return wanted


def _write_labels(root: Path, source: Source, planned: list[PlannedSample], link: str) -> dict:
    suffix, reencoded = common_suffix(planned)
    pixels = {split: np.zeros(256, np.int64) for split in SPLITS}
    for split in SPLITS:
        (root / 'images' / split).mkdir(parents=True)
        (root / 'annotations' / split).mkdir(parents=True)
    with progress_bar('images written', len(planned), 'image') as bar:
        for entry in planned:
            image, target = entry.sample.image, root / 'images' / entry.split / f'{entry.name}{suffix}'
            _put(image, target, link, normal_suffix(image) in reencoded)
            labels = entry.sample.load(lambda *_: None)
            Image.fromarray(labels).save(root / 'annotations' / entry.split / f'{entry.name}.png')
            pixels[entry.split] += np.bincount(labels.ravel(), minlength=256)
            bar.update()
    if reencoded:
        source.notes.append(f'{", ".join(sorted(reencoded))} images are written as PNG, since all images of a '
                            'segmentation set have one suffix; every pixel is kept')
    ignored = sum(counts[IGNORED] for counts in pixels.values())
    source.notes.append(f'ignored pixels: {ignored:,} ({ignored / sum(map(np.sum, pixels.values())):.1%} of all)')
    images = Counter(entry.split for entry in planned)
    splits = {split: SplitInfo(images[split], dict(zip(source.classes, pixels[split].tolist(), strict=False)),
                               f'images/{split}/', seg_prefix=f'annotations/{split}/') for split in SPLITS}
    return {'splits': splits, 'ignore_index': IGNORED, 'img_suffix': suffix, 'seg_map_suffix': '.png'}
