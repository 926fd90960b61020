"""COCO json: polygons, run lengths, crowds or boxes only; every key of images and annotations is kept."""
from array import array
from pathlib import Path

from ...errors import UserError
from ..json_stream import looks_like_coco, read_element, stream_json
from .pairs import SPLIT_NAMES
from .source import Options, Sample, Source

TASK = 'det'


def detect(root: Path) -> bool:
    """A json file, or a folder of them, with images and annotations."""
    return bool(annotation_files(root))


def open_source(root: Path, options: Options) -> Source:
    """Every annotation file is one split where its name says so (`instances_train2017.json`).

    Raises:
        UserError: no annotation file, an image folder that is not to be found, or categories that contradict.
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
    """The annotation files of a source; with COCO's own names, captions and keypoints are left aside."""
    if root.is_file():
        return [root] if root.suffix == '.json' else []
    for folder in (root / 'annotations', root):
        found = sorted(file for file in folder.glob('*.json') if looks_like_coco(file))
        if found:
            return [file for file in found if file.name.startswith('instances')] or found
    return []


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
        if (place / file_name).is_file():
            return place
    raise UserError(f'{ann_file}: its image {file_name} is not in {root}, {root / "images"} or {root / name}: name the '
                    'folder with --images')


def _read_file(file: Path, root: Path, options: Options, split: str | None, source: Source) -> None:
    images, categories = [], []
    owners, offsets, lengths = array('q'), array('q'), array('l')
    for key, value, offset, length in stream_json(file):
        if key == 'images':
            images.append(value)
        elif key == 'categories':
            categories.append(value)
        elif key == 'annotations':
            if not isinstance(value, dict) or not isinstance(value.get('image_id'), int):
                source.skipped.add('annotation without an integer image_id', f'{file}, {value}')
                continue
            owners.append(value['image_id'])
            offsets.append(offset)
            lengths.append(length)
    _check_categories(file, categories, source)
    known = {category['id'] for category in categories}
    places = {image['id']: [] for image in images}
    for owner, offset, length in zip(owners, offsets, lengths, strict=True):
        if owner in places:
            places[owner].append((offset, length))
        else:
            source.skipped.add('annotation of an unknown image', f'{file}, image_id {owner}')
    folder = _image_folder(file, root, options, images)
    for image in images:
        record = {key: value for key, value in image.items() if key != 'file_name'}
        source.samples.append(Sample(
            folder / image['file_name'], split=split, record=record,
            load=lambda skip, spots=places[image['id']]: _annotations(file, spots, known, skip)))


def _annotations(file: Path, spots: list[tuple[int, int]], known: set, skip) -> list[dict]:
    found = [read_element(file, offset, length) for offset, length in spots]
    for annotation in found:
        if annotation.get('category_id') not in known:
            skip('annotation of an unknown category', f'{file}, id {annotation.get("id")}')
    return [annotation for annotation in found if annotation.get('category_id') in known]


def _image_folder(file: Path, root: Path, options: Options, images: list[dict]) -> Path:
    for name in options.images:
        for folder in (Path(name), root / name):
            if images and (folder / images[0]['file_name']).is_file():
                return folder
    if options.images:
        raise UserError(f'--images {" ".join(options.images)}: no {images[0]["file_name"]} of {file} in there')
    for image in images[:10]:  # the first may be missing
        try:
            return image_folder(file, root, image['file_name'])
        except UserError as error:
            missing = error
    raise missing if images else UserError(f'{file} lists no images')


def _check_categories(file: Path, categories: list[dict], source: Source) -> None:
    names = [category['name'] for category in categories]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise UserError(f'{file} has ' + (f'two categories named {twice[0]}: give each a name of its own' if twice else
                                          'no categories: expected a list of {id, name}'))
    if not source.categories:
        source.categories = categories
    elif [(c['id'], c['name']) for c in source.categories] != [(c['id'], c['name']) for c in categories]:
        raise UserError(f'{file} has other categories than the file before it: give both the same list, in one order')
