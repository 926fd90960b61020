"""YOLO: `images/`, `labels/` with a text file per image, and data.yaml."""
from pathlib import Path

import yaml

from ..convert.planning import PlannedSample
from ..convert.source import Source
from .images import inside, objects_of, placed
from .outlines import single_polygon


def write(root: Path, source: Source, planned: list[PlannedSample], link: str) -> None:
    """Polygons where every object has a mask, otherwise boxes. A mask with parts or holes is one polygon."""
    places = {category['id']: index for index, category in enumerate(source.categories)}
    objects = [annotation for entry in planned for annotation in objects_of(entry, Source('det', [], []))]
    with_masks = bool(objects) and all(annotation.get('segmentation') for annotation in objects)
    if not with_masks and any(annotation.get('segmentation') for annotation in objects):
        source.notes.append('not every object has a mask: boxes are written for all')
    del objects
    for entry, image in placed(planned, lambda split: root / 'images' / split, link):
        file = root / 'labels' / entry.split / f'{image.stem}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for annotation in objects_of(entry, source):
            try:
                values = _polygon(annotation, entry.size) if with_masks else _box(annotation, entry.size)
            except ValueError as error:
                source.skipped.add(str(error), entry.sample.image)
                continue
            lines.append(' '.join([str(places[annotation['category_id']]), *(f'{value:.9g}' for value in values)]))
        file.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
    splits = {split: f'images/{split}' for split in ('train', 'val') if (root / 'images' / split).is_dir()}
    content = {**splits, 'names': dict(enumerate(source.classes))}
    (root / 'data.yaml').write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding='utf-8')


def _polygon(annotation: dict, size: tuple[int, int]) -> list[float]:
    """Relative to the image, and within it."""
    points = single_polygon(annotation['segmentation'], size)
    return [min(max(value / size[index % 2], 0), 1) for index, value in enumerate(points)]


def _box(annotation: dict, size: tuple[int, int]) -> list[float]:
    """Centre and size, relative to the image."""
    left, top, right, bottom = inside(annotation['bbox'], size)
    if right <= left or bottom <= top:
        raise ValueError('box outside its image')
    return [(left + right) / 2 / size[0], (top + bottom) / 2 / size[1], (right - left) / size[0],
            (bottom - top) / size[1]]
