"""COCO json: polygons, run lengths, crowds or boxes only; every key of images and annotations is kept."""
import os
from array import array
from collections import Counter
from pathlib import Path
from reprlib import repr as short_repr

from ...errors import UserError
from ...utils.files import is_inside
from ..json_stream import looks_like_coco, read_element, stream_json
from ..json_values import is_integer
from .pairs import SPLIT_NAMES
from .source import Options, Sample, Source

TASK = 'det'


def detect(root: Path) -> bool:
    """A json file, or a folder of them, with images and annotations."""
    return bool(annotation_files(root))


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
    source = Source('det', [], [])
    for file in files:
        split = split_in_name(file.stem)
        if split == 'test' and len(files) > 1:
            source.skipped.add('annotation file of a test split', file)
            continue
        _read_file(file, root, options, None if split == 'test' else split, source)
    return source


def annotation_files(root: Path) -> list[Path]:
    """The annotation files of a source; among files with COCO's own names, captions and keypoints are left out."""
    if root.is_file():
        return [root] if root.suffix == '.json' else []
    for folder in (root / 'annotations', root):
        found = sorted(file for file in folder.glob('*.json') if looks_like_coco(file))
        if found:
            return [file for file in found if file.name.startswith('instances')] or found
    return []


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
        if os.path.isfile(place / file_name):  # False also for a name that no file can have
            return place
    raise UserError(f'{ann_file}: its image {short_repr(file_name)} is not in {root}, {root / "images"} or '
                    f'{root / name}: name the folder with --images')


def _read_file(file: Path, root: Path, options: Options, split: str | None, source: Source) -> None:
    images, categories = {}, []
    owners, offsets, lengths = array('q'), array('q'), array('q')
    for key, value, offset, length in stream_json(file):
        if key == 'images':
            _add_image(value, images, file, source)
        elif key == 'categories':
            categories.append(value)
        elif key == 'annotations':
            if not isinstance(value, dict) or not is_integer(value.get('image_id')):
                source.skipped.add('annotation without an integer image_id', f'{file}, {short_repr(value)}')
                continue
            owners.append(value['image_id'])
            offsets.append(offset)
            lengths.append(length)
    _check_categories(file, categories, source)
    known = {category['id'] for category in categories}
    places = {number: [] for number in images}
    for owner, offset, length in zip(owners, offsets, lengths, strict=True):
        if owner in places:
            places[owner].append((offset, length))
        else:
            source.skipped.add('annotation of an unknown image', f'{file}, image_id {owner}')
    folder = _image_folder(file, root, options, list(images.values()))
    for number, image in images.items():
        path = folder / image['file_name']
        if not is_inside(path, (folder, data_folder(file, root))):
            raise UserError(f'{file}: the file_name {short_repr(image["file_name"])} of image {number} leads outside '
                            f'{data_folder(file, root)}: correct it, or name the folder of the images with --images')
        record = {key: value for key, value in image.items() if key != 'file_name'}
        source.samples.append(Sample(
            path, split=split, record=record,
            load=lambda skip, spots=places[number]: _annotations(file, spots, known, skip)))


def _add_image(record, images: dict[int, dict], file: Path, source: Source) -> None:
    if not isinstance(record, dict) or not is_integer(record.get('id')) or not isinstance(record.get('file_name'), str):
        source.skipped.add('image without an integer id and a file_name', f'{file}, {short_repr(record)}')
    elif record['id'] in images:
        source.skipped.add('image whose id another one has', f'{file}, {short_repr(record)}')
    else:
        images[record['id']] = record


def _annotations(file: Path, spots: list[tuple[int, int]], known: set, skip) -> list[dict]:
    kept = []
    for offset, length in spots:
        annotation = read_element(file, offset, length)
        if is_integer(annotation.get('category_id')) and annotation['category_id'] in known:
            kept.append(annotation)
        else:
            skip('annotation of an unknown category', f'{file}, id {short_repr(annotation.get("id"))}')
    return kept


def _image_folder(file: Path, root: Path, options: Options, images: list[dict]) -> Path:
    if not images:
        raise UserError(f'{file} lists no images: expected {{id, file_name, width, height}} for each')
    for name in options.images:
        for folder in (Path(name), root / name):
            if os.path.isfile(folder / images[0]['file_name']):
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
