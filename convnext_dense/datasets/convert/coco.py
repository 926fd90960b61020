"""COCO json: polygons, run lengths, crowds or boxes only; every key of images and annotations is kept.

Also as CVAT, Label Studio, Roboflow and Supervisely export it: one json per split beside its images, ids as text, file
names of Windows.
"""
import os
from array import array
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from reprlib import repr as short_repr

from ...errors import UserError
from ...utils.files import is_inside
from ..box_format import BoxFormat
from ..json_stream import looks_like_coco, read_element, stream_json
from ..json_values import is_integer, is_number
from . import predictions
from .file_names import find_name
from .pairs import SPLIT_NAMES
from .source import Options, Sample, Source


def detect(root: Path) -> bool:
    """A json file, or a folder of them, with images and annotations; those of `predict` are no data set."""
    return any(file.name != predictions.FILE for file in annotation_files(root))


def open_source(root: Path, options: Options) -> Source:
    """Every annotation file is one split if its name says so (`instances_train2017.json`).

    Raises:
        UserError: no annotation file, an image folder that is not found, an image outside the data folder, or
            categories that contradict.
    """
    files = annotation_files(root)
    if not files:
        raise UserError(f'{root} has no COCO json: expected annotations/*.json, *.json or the file itself, with '
                        '"images" and "annotations"')
    source, used, boxes = Source('det', [], []), Counter(), BoxFormat()
    for file in files:
        split = split_of_file(file, root)
        if split == 'test' and len(files) > 1:
            source.skipped.add('annotation file of a test split', file)
            continue
        used += _read_file(file, root, options, None if split == 'test' else split, source, boxes)
    _drop_root_category(source, used)
    if options.boxes == 'xywh':
        source.verify = lambda _: _check_boxes(boxes, files)
    return source


def annotation_files(root: Path) -> list[Path]:
    """The annotation files of a source; among files with COCO's own names, captions and keypoints are left out."""
    if root.is_file():
        return [root] if root.suffix == '.json' else []
    for folder in (root / 'annotations', root):
        found = sorted(file for file in folder.glob('*.json') if looks_like_coco(file))
        if found:
            return [file for file in found if file.name.startswith('instances')] or found
    return sorted(file for file in root.glob('*/*.json')  # as Roboflow: a json in the folder of each split
                  if _split_word(file.parent.name) and looks_like_coco(file))


def split_of_file(file: Path, root: Path) -> str | None:
    """'train', 'val' or 'test', from the name of an annotation file or of its folder below the source."""
    return split_in_name(file.stem) or (_split_word(file.parent.name) if file.parent != root else None)


def _split_word(name: str) -> str | None:
    return SPLIT_NAMES.get(name.lower())


def data_folder(ann_file: Path, root: Path) -> Path:
    """The folder that images must be inside: the source, or, if that is the json file, the folder it belongs to."""
    if root.is_dir():
        return root
    return ann_file.parent.parent if ann_file.parent.name == 'annotations' else ann_file.parent


def split_in_name(stem: str) -> str | None:
    """'train', 'val' or 'test' for names such as instances_train2017, valid or _annotations.coco-test."""
    words = ''.join(character if character.isalpha() else ' ' for character in stem.lower()).split()
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def image_folder(ann_file: Path, root: Path, file_name: str) -> Path:
    """The folder in which the images of an annotation file lie.

    Raises:
        UserError: the image is in none of the usual places.
    """
    root = root if root.is_dir() else root.parent
    name = ann_file.stem.removeprefix('instances_')
    split = split_in_name(ann_file.stem) or ''
    places = [base / part for base in (root, ann_file.parent, ann_file.parent.parent)
              for part in (name, split, f'images/{name}', f'images/{split}', 'images', '')]
    for place in places:
        if os.path.isfile(place / find_name(place, file_name)):  # False also for a name that no file can have
            return place
    raise UserError(f'{ann_file}: its image {short_repr(file_name)} is not in {root}, {root / "images"} or '
                    f'{root / name}: name the folder with --images')


def _read_file(file: Path, root: Path, options: Options, split: str | None, source: Source,
               boxes: BoxFormat) -> Counter:
    """Add the images of an annotation file to `source`; returns how often each category is used."""
    images, categories, used = {}, [], Counter()
    numbers: dict[int | str, int] = {}  # image id, as `_id_of` gives it -> its place in `places`
    owners, offsets, lengths = array('q'), array('q'), array('q')
    for key, value, offset, length in stream_json(file):
        if key == 'images':
            _add_image(value, images, file, source)
        elif key == 'categories':
            categories.append(_with_integer_id(value))
        elif key == 'annotations':
            owner = _id_of(value.get('image_id')) if isinstance(value, dict) else None
            if owner is None:
                source.skipped.add('annotation without an integer image_id', f'{file}, {short_repr(value)}')
                continue
            owners.append(numbers.setdefault(owner, len(numbers)))
            offsets.append(offset)
            lengths.append(length)
            used[_id_of(value.get('category_id'))] += 1
    _check_categories(file, categories, source)
    if owners and images and not images.keys() & numbers.keys():
        raise UserError(f'{file}: none of its {len(owners)} annotations is of one of its images: image_id is '
                        f'{short_repr(next(iter(numbers)))}, the first image has the id '
                        f'{short_repr(next(iter(images)))}: give both the same ids')
    places = [[] if number in images else None for number in numbers]
    for owner, offset, length in zip(owners, offsets, lengths, strict=True):
        if places[owner] is None:
            source.skipped.add('annotation of an unknown image', f'{file}, image_id {list(numbers)[owner]!r}')
        else:
            places[owner].append((offset, length))
    reader = _Annotations(file, {category['id'] for category in categories}, options.boxes, boxes)
    folder = _image_folder(file, root, options, list(images.values()))
    for number, image in images.items():
        path = folder / find_name(folder, image['file_name'])
        if not is_inside(path, (folder, data_folder(file, root))):
            raise UserError(f'{file}: the file_name {short_repr(image["file_name"])} of image {number} leads outside '
                            f'{data_folder(file, root)}: correct it, or name the folder of the images with --images')
        record = {**{key: value for key, value in image.items() if key != 'file_name'}, 'id': number}
        spots = places[numbers[number]] if number in numbers else []
        source.samples.append(Sample(path, partial(reader.read, image, spots), split, record))
    return used


def _id_of(value) -> int | str | None:
    """An id as an integer, also where it is written as text ("7"); text that is no number stays text."""
    if is_integer(value):
        return value
    if isinstance(value, str) and value:
        return int(value) if value.isdecimal() and len(value) < 19 else value
    return None


def _with_integer_id(category):
    number = _id_of(category.get('id')) if isinstance(category, dict) else None
    return {**category, 'id': number} if is_integer(number) else category


def _add_image(record, images: dict[int | str, dict], file: Path, source: Source) -> None:
    number = _id_of(record.get('id')) if isinstance(record, dict) else None
    if number is None or not isinstance(record.get('file_name'), str):
        source.skipped.add('image without an integer id and a file_name', f'{file}, {short_repr(record)}')
    elif number in images:
        source.skipped.add('image whose id another one has', f'{file}, {short_repr(record)}')
    else:
        images[number] = record


@dataclass
class _Annotations:
    """Reads the annotations of a file, and counts the form of their boxes.

    Args:
        file: the json.
        known: ids of its categories.
        form: 'xywh', or 'xyxy' for boxes to be changed to that.
        boxes: counts.
    """
    file: Path
    known: set
    form: str
    boxes: BoxFormat

    def read(self, image: dict, spots: list[tuple[int, int]], skip) -> list[dict]:
        """The annotations of an image, which lie at (offset, length) in the file."""
        kept = []
        for offset, length in spots:
            annotation = _with_category(read_element(self.file, offset, length))
            if annotation['category_id'] in self.known:
                kept.append(self._with_box(annotation, image))
            else:
                skip('annotation of an unknown category', f'{self.file}, id {short_repr(annotation.get("id"))}')
        return kept

    def _with_box(self, annotation: dict, image: dict) -> dict:
        box = annotation.get('bbox')
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            return annotation  # check_dataset reports it
        if is_number(image.get('width')) and is_number(image.get('height')):
            self.boxes.add(box, image['width'], image['height'])
        if self.form == 'xyxy':
            annotation['bbox'] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        return annotation


def _with_category(annotation: dict) -> dict:
    number = _id_of(annotation.get('category_id'))
    annotation['category_id'] = number if is_integer(number) else None
    return annotation


def _check_boxes(boxes: BoxFormat, files: list[Path]) -> None:
    if boxes.is_shares:
        raise UserError(f'{files[0]}: {boxes.sentence}: COCO boxes and polygons are in pixels; multiply x and width by '
                        "the image's width, y and height by its height")
    if boxes.is_corners:
        raise UserError(f'{files[0]}: {boxes.sentence}: COCO boxes are x, y, width, height; read corners with '
                        '--boxes xyxy')


def _drop_root_category(source: Source, used: Counter) -> None:
    """Leave out the class that Roboflow writes above all others: no object has it, and it is their supercategory."""
    roots = [category for category in source.categories if category.get('supercategory') == 'none']
    others = [category for category in source.categories if category not in roots[:1]]
    if len(roots) == 1 and others and not used[roots[0]['id']] \
            and all(category.get('supercategory') == roots[0]['name'] for category in others):
        source.categories = others
        source.notes.append(f'the category {short_repr(roots[0]["name"])} stands above all others and has no object: '
                            'it is left out')


def _image_folder(file: Path, root: Path, options: Options, images: list[dict]) -> Path:
    if not images:
        raise UserError(f'{file} lists no images: expected {{id, file_name, width, height}} for each')
    for name in options.images:
        for folder in (Path(name), root / name):
            if any(os.path.isfile(folder / find_name(folder, image['file_name'])) for image in images[:10]):
                return folder
    if options.images:
        raise UserError(f'--images {" ".join(options.images)}: {short_repr(images[0]["file_name"])} of {file} is not '
                        'in there')
    for image in images[:10]:  # the first may be missing
        try:
            return image_folder(file, root, image['file_name'])
        except UserError as error:
            missing = error
    raise missing


def _check_categories(file: Path, categories: list, source: Source) -> None:
    for category in categories:
        fits = isinstance(category, dict) and is_integer(category.get('id'))
        if not fits or not isinstance(category.get('name'), str):
            raise UserError(f'{file} has the category {short_repr(category)}: expected an object with an integer id '
                            'and a name')
    if not categories:
        raise UserError(f'{file} has no categories: expected a list of {{id, name}}')
    for key in ('id', 'name'):
        value, times = Counter(category[key] for category in categories).most_common(1)[0]
        if times > 1:
            raise UserError(f'{file} has two categories with the {key} {short_repr(value)}: give each its own')
    if not source.categories:
        source.categories = categories
    elif [(c['id'], c['name']) for c in source.categories] != [(c['id'], c['name']) for c in categories]:
        raise UserError(f'{file} has other categories than the file before it: give both the same list, in one order')
