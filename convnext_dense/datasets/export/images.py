"""What all exports share: images in their place, and the objects that a format can hold."""
from collections.abc import Iterator
from pathlib import Path

from ...utils.progress import progress_bar
from ..convert.planning import PlannedSample
from ..convert.source import Source
from ..convert.writing import put_image
from ..json_values import is_number


def placed(planned: list[PlannedSample], folder_of, link: str) -> Iterator[tuple[PlannedSample, Path]]:
    """Put every image into the folder that `folder_of(split)` names; yields the sample and the image's new path."""
    with progress_bar('images written', len(planned), 'image') as bar:
        for entry in planned:
            folder = folder_of(entry.split)
            folder.mkdir(parents=True, exist_ok=True)
            yield entry, put_image(entry, folder, link)
            bar.update()


def objects_of(entry: PlannedSample, source: Source) -> list[dict]:
    """The annotations of an image without crowds, which only COCO has, and damaged ones; these are counted."""
    kept = []
    for annotation in entry.sample.load(lambda *_: None):
        box, mask = annotation.get('bbox'), annotation.get('segmentation')
        if annotation.get('iscrowd'):
            source.skipped.add('crowd region, which the format cannot mark', entry.sample.image)
        elif not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            source.skipped.add('object without a box of four numbers', entry.sample.image)
        elif mask and not isinstance(mask, dict) and not _are_polygons(mask):
            source.skipped.add('object with a damaged mask', entry.sample.image)
        else:
            kept.append(annotation)
    return kept


def _are_polygons(mask) -> bool:
    return isinstance(mask, list) and all(
        isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 and all(map(is_number, polygon))
        for polygon in mask)


def inside(box: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Corners of a box, within the image."""
    x, y, w, h = box
    return max(x, 0), max(y, 0), min(x + w, size[0]), min(y + h, size[1])
