"""Predictions of `predict`, to be corrected in a labelling tool (`--to labelme`, `coco`, ...)."""
from functools import partial
from pathlib import Path, PurePath

from ...errors import UserError
from ..json_values import is_integer, is_number
from .objects import read_json
from .source import Options, Sample, Source

FILE = 'predictions.json'


def detect(root: Path) -> bool:
    """The file that `predict` writes, or its folder."""
    return (root if root.is_file() else root / FILE).is_file() and (root.is_dir() or root.name == FILE)


def open_source(root: Path, options: Options) -> Source:
    """Detections from `options.min_score` on, with their score; images lie in `options.images`.

    Raises:
        UserError: no folder of images is given, or the file has no detections.
    """
    file = root / FILE if root.is_dir() else root
    content = read_json(file)
    folders = [Path(name) for name in options.images]
    if not folders or not all(folder.is_dir() for folder in folders):
        raise UserError(f'{file} names images by the paths that predict was given: name their folder with --images')
    if not all(isinstance(content.get(key), list) for key in ('images', 'annotations', 'categories')):
        raise UserError(f'{file} has no detections: expected images, annotations and categories, as predict writes '
                        'them for a detector')
    by_image: dict[int, list[dict]] = {}
    for annotation in content['annotations']:
        if is_number(annotation.get('score')) and annotation['score'] >= options.min_score:
            by_image.setdefault(annotation.get('image_id'), []).append(annotation)
    categories = [{'id': category['id'], 'name': category['name']} for category in content['categories']]
    source = Source('det', categories, [], single=True)
    for record in content['images']:
        if 'frame' in record:
            source.skipped.add('frame of a video', record.get('file_name'))
        elif is_integer(record.get('id')) and isinstance(record.get('file_name'), str):
            image = _find(record['file_name'], folders)
            source.samples.append(Sample(image, partial(_annotations, by_image.get(record['id'], [])), 'train'))
    return source


def _find(name: str, folders: list[Path]) -> Path:
    """The image below one of the folders with the longest common end of its path."""
    parts = PurePath(name).parts
    for start in range(len(parts)):
        for folder in folders:
            file = folder.joinpath(*parts[start:])
            if '..' not in parts[start:] and not PurePath(parts[start]).is_absolute() and file.is_file():
                return file
    return folders[0] / parts[-1]


def _annotations(annotations: list[dict], skip) -> list[dict]:
    return [{**annotation, 'iscrowd': 0} for annotation in annotations]
