"""What readers of detection formats share: COCO annotations from shapes, class names, images of annotations."""
import json
from collections.abc import Iterable
from pathlib import Path
from reprlib import repr as short_repr

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ...errors import UserError
from ...utils.files import is_inside
from ...utils.images import IMAGE_SUFFIXES, OversizedImageError, read_header
from ..json_values import is_number
from .class_files import find_class_file, read_classes
from .file_names import find_name, last_part
from .source import Options, UnusableAnnotation

MAX_JSON = 2**29  # bytes; LabelMe's may hold the image
CIRCLE_POINTS = 72  # of a polygon for a circle: its area is off by 0.13 %


def box_annotation(category_id: int, left: float, top: float, width: float, height: float, **more) -> dict:
    """COCO annotation of a box.

    Raises:
        ValueError: it has no area, or a value that is not finite.
    """
    if not all(map(is_number, (left, top, width, height))) or width <= 0 or height <= 0:
        raise ValueError('box without area')
    return {'category_id': category_id, 'bbox': [left, top, width, height], 'area': width * height, 'iscrowd': 0,
            **more}


def polygon_annotation(category_id: int, polygons: list[list[float]], size: tuple[int, int], **more) -> dict:
    """COCO annotation of polygons ([x1, y1, x2, y2, ...] each) in an image of size (width, height).

    Raises:
        ValueError: one has fewer than three points or a value that is not finite, or they have no area.
    """
    if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise ValueError('polygon with fewer than three points')
    if not all(is_number(value) for polygon in polygons for value in polygon):
        raise ValueError('polygon with a value that is no finite number')
    width, height = size
    points = [np.reshape(polygon, (-1, 2)) for polygon in polygons]
    low, high = (np.array([fold(part, axis=0) for part in points]) for fold in (np.min, np.max))
    low, high = low.min(0), high.max(0)
    if (high <= low).any():
        raise ValueError('polygon without area')
    # the time that pycocotools takes grows with the length of the edges, inside the image or not
    near = [np.clip(part, (-width, -height), (2 * width, 2 * height)).ravel().tolist() for part in points]
    area = int(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(near, height, width))))
    return {'category_id': category_id, 'bbox': [*low.tolist(), *(high - low).tolist()], 'area': area, 'iscrowd': 0,
            'segmentation': [[float(value) for value in polygon] for polygon in polygons], **more}


def mask_annotation(category_id: int, mask: np.ndarray, **more) -> dict:
    """COCO annotation of a mask (H, W); the run lengths hold it exactly.

    Raises:
        ValueError: it has no pixel.
    """
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    area = int(coco_mask.area(rle))
    if not area:
        raise ValueError('mask without a pixel')
    return {'category_id': category_id, 'bbox': [float(v) for v in coco_mask.toBbox(rle)], 'area': area, 'iscrowd': 0,
            'segmentation': {'size': list(mask.shape), 'counts': rle['counts'].decode('ascii')}, **more}


def pasted(part: np.ndarray, left: int, top: int, size: tuple[int, int]) -> np.ndarray:
    """A mask of a whole image, size (width, height), from the part whose first pixel is at (left, top)."""
    width, height = size
    whole = np.zeros((height, width), bool)
    x, y = max(left, 0), max(top, 0)
    part = part[y - top:, x - left:][:max(height - y, 0), :max(width - x, 0)]
    whole[y:y + part.shape[0], x:x + part.shape[1]] = part != 0
    return whole


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> list[float]:
    """The polygon of an ellipse."""
    angles = np.arange(CIRCLE_POINTS) * (2 * np.pi / CIRCLE_POINTS)
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], 1).ravel().tolist()


def turned_box(left: float, top: float, width: float, height: float, degrees: float) -> list[float]:
    """The polygon of a box that is turned clockwise around its centre."""
    points = cv2.boxPoints(((left + width / 2, top + height / 2), (width, height), degrees))
    return points.ravel().astype(float).tolist()


def class_names(found: Iterable[str], options: Options, root: Path) -> list[str]:
    """The names of `--classes` or a class list in the source, otherwise those that annotations have, sorted.

    Raises:
        UserError: there is none.
    """
    if options.classes or find_class_file(root):
        names = [entry.name for entry in read_classes(options.classes, root)]
        return [name for name in names if name not in ('__ignore__', '_background_')]  # LabelMe's lists have them
    names = sorted(set(found))
    if not names:
        raise UserError(f'{root} has no object: name the classes with --classes, or check the annotations')
    return names


def find_image(name: str, stem: str, places: list[Path], root: Path) -> Path:
    """The image that an annotation names, in one of several folders; else the one with the annotation's own stem.

    It lies in one of the folders or in `root`; where nothing is found, the answer is a file that does not exist.
    """
    for wanted in (name, last_part(name)):
        for place in places:
            file = place / find_name(place, wanted) if wanted else place
            if _is_file(file) and is_inside(file, (root, *places)):
                return file
    for place in places:
        for suffix in IMAGE_SUFFIXES:
            for spelled in (suffix, suffix.upper()):
                if _is_file(place / f'{stem}{spelled}'):
                    return place / f'{stem}{spelled}'
    return places[0] / (last_part(name) or f'{stem}.jpg')


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def image_places(file: Path, options: Options, root: Path, *names: str) -> list[Path]:
    """Folders in which the image of an annotation file may be: `--images`, its own, and `names` beside that."""
    given = [place for name in options.images for place in (Path(name), root / name) if place.is_dir()]
    beside = [base / name for base in (file.parent.parent, root) for name in names]
    return given or [file.parent, *(place for place in beside if place.is_dir())]


def check_image_size(image: Path, width: float, height: float, objects: int) -> tuple[int, int]:
    """Width and height of an image as it is read; refuses an annotation that is for an image of another size.

    Sizes that are only swapped are accepted where no EXIF tag turns the image: some tools write them so.

    Args:
        image: the file; of one that cannot be read, the annotation's size is returned.
        width, height: as the annotation has them; 0 says nothing.
        objects: how many the annotation has.

    Raises:
        UnusableAnnotation: names both sizes.
    """
    try:
        header = read_header(image)
    except (OSError, OversizedImageError):  # reported with the images
        return int(width), int(height)
    found = header.width, header.height
    if header.orientation != 1 and (width, height) == found[::-1] != found:
        raise UnusableAnnotation('annotation for an image as it is stored, which an EXIF tag turns when it is read: '
                                 'annotate what is seen, or remove the tag', objects)
    if width and height and (width, height) not in (found, found[::-1]):
        raise UnusableAnnotation(f'annotation for an image of another size, as {width:g}x{height:g} instead of '
                                 f'{found[0]}x{found[1]}', objects)
    return found


def of_image_size(annotations: list[dict], image: Path) -> list[dict]:
    """Annotations made of mask files; refuses masks that have another size than the image as it is read.

    Raises:
        UnusableAnnotation: names both sizes.
    """
    try:
        header = read_header(image)
    except (OSError, OversizedImageError):  # reported with the images
        return annotations
    for annotation in annotations:
        height, width = annotation['segmentation']['size']
        if (width, height) != (header.width, header.height):
            turned = ', which an EXIF tag turns when it is read' if header.orientation != 1 else ''
            raise UnusableAnnotation(f'mask of another size than its image{turned}, as {width}x{height} instead of '
                                     f'{header.width}x{header.height}', len(annotations))
    return annotations


def read_json(file: Path) -> dict:
    """The object in a small json file, with or without a byte order mark.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    try:
        if file.stat().st_size > MAX_JSON:
            raise UserError(f'{file} has more than {MAX_JSON:,} bytes: divide it')
        content = json.loads(file.read_text(encoding='utf-8-sig'))
    except UserError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{file} could not be read as JSON ({" ".join(str(error).split())}): repair it, or write it '
                        'again') from None
    if not isinstance(content, dict):
        raise UserError(f'{file} holds {short_repr(content)}, expected an object')
    return content
