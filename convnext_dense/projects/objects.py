"""The objects of a COCO json, as a detector sees them: their boxes after images are resized, and how many there are."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..datasets.json_stream import stream_json
from ..datasets.json_values import is_number


@dataclass(frozen=True)
class Objects:
    """Boxes of a data set's objects, without crowd regions.

    Args:
        boxes: (N, 4) float, left, top, right, bottom in pixels.
        images: (N,) int, the image of each box, an index into ``sizes``.
        sizes: (M, 2) float, width and height in pixels of every image, also of those without objects.
    """
    boxes: np.ndarray
    images: np.ndarray
    sizes: np.ndarray

    @property
    def sides(self) -> np.ndarray:
        """Square root of each box's area, (N,) in pixels."""
        return np.sqrt(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1))

    @property
    def per_image(self) -> np.ndarray:
        """Number of objects of every image that has any."""
        counts = np.bincount(self.images, minlength=len(self.sizes))
        return counts[counts > 0]

    def resized(self, scale: tuple[int, int]) -> 'Objects':
        """The objects after mmdet's ``Resize(scale, keep_ratio=True)``: long and short side at most, in pixels."""
        factors = np.minimum(scale[0] / self.sizes.max(axis=1), scale[1] / self.sizes.min(axis=1))
        return Objects(self.boxes * factors[self.images, None], self.images, np.rint(self.sizes * factors[:, None]))

    def sample(self, count: int) -> 'Objects':
        """At most ``count`` objects, evenly spaced in the file's order; the images stay."""
        chosen = np.linspace(0, len(self.boxes) - 1, min(count, len(self.boxes))).astype(int)
        return Objects(self.boxes[chosen], self.images[chosen], self.sizes)


def read_objects(ann_file: Path) -> Objects:
    """Read a COCO json; what is not as it should be is left out (tools/check_dataset.py reports it).

    Raises:
        UserError: the file cannot be read as json.
    """
    sizes: dict = {}
    found: list[tuple] = []
    for key, value, _, _ in stream_json(ann_file):
        if not isinstance(value, dict):
            continue
        if key == 'images':
            size = (value.get('width'), value.get('height'))
            if _are_positive(size) and isinstance(value.get('id'), (int, str)):
                sizes[value['id']] = size
        elif key == 'annotations':
            box = value.get('bbox')
            if not value.get('iscrowd') and isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) \
                    and min(box[2:]) >= 1 and isinstance(value.get('image_id'), (int, str)):  # mmdet drops smaller ones
                found.append((value['image_id'], box))
    index = {image: position for position, image in enumerate(sizes)}
    found = [(index[image], box) for image, box in found if image in index]
    boxes = np.array([box for _, box in found], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Objects(boxes, np.array([image for image, _ in found], int),
                   np.array(list(sizes.values()), float).reshape(-1, 2))


def _are_positive(values) -> bool:
    return all(is_number(value) and value > 0 for value in values)
