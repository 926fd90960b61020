"""What a Predictor returns: the objects of an image, or its label map; arrays that are indexed, drawn and saved.

Needs no torch, and pycocotools only for COCO's format.
"""
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..errors import UserError, few
from ..utils.files import atomic_write
from ..utils.images import TILED_MAX_PIXELS, allow_pixels
from ..visualization.draw import Colour, Instances, distinct_colours, draw_instances, draw_segmentation, read_image

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')  # that `save` writes


class Result:
    """What `Detections` and `Segmentation` share: pictures and files.

    Attributes:
        classes: names, indexed by the labels.
        palette: one RGB colour per class, or None for colours of our own.
        image: what was predicted, a file or RGB uint8 (H, W, 3); None where that is not known.
    """
    classes: Sequence[str]
    palette: Sequence[Colour] | None
    image: str | os.PathLike | np.ndarray | None

    @property
    def colours(self) -> Sequence[Colour]:
        """One RGB colour per class."""
        return self.palette or distinct_colours(len(self.classes))

    def categories(self) -> list[dict]:
        """The classes in COCO's format, with ids from 1."""
        return [dict(id=index, name=name, color=list(colour))
                for index, (name, colour) in enumerate(zip(self.classes, self.colours, strict=True), 1)]

    def save(self, path: str | os.PathLike, **options) -> Path:
        """Write the picture of `draw`, or with the suffix .json the result in COCO's format.

        Args:
            path: a name that ends in .json or as a picture does (.jpg, .png, ...).
            options: of `draw`.

        Returns:
            The file.

        Raises:
            UserError: another suffix, or as `draw`.
        """
        path = Path(path)
        if path.suffix.lower() == '.json':
            height, width = self.size
            image = dict(id=1, file_name='' if isinstance(self.image, np.ndarray | None) else str(self.image),
                         width=width, height=height)
            content = dict(images=[image], categories=self.categories(), annotations=self.to_coco())
            with atomic_write(path) as part:
                part.write_text(json.dumps(content))
            return path
        if path.suffix.lower() not in PICTURES:
            raise UserError(f'{path} has no suffix of a result: expected .json, or a picture ({few(PICTURES, 10)})')
        picture = self.draw(**options)
        with atomic_write(path) as part:
            Image.fromarray(picture).save(part)
        return path

    def _image(self, image) -> np.ndarray:
        """The RGB image to draw on."""
        image = self.image if image is None else image
        if image is None:
            raise UserError('there is no image to draw on: give draw(image) the RGB array or the file that was '
                            'predicted')
        image = np.asarray(image.convert('RGB')) if isinstance(image, Image.Image) else image
        if isinstance(image, np.ndarray):
            return image
        with allow_pixels(TILED_MAX_PIXELS):  # it has been predicted, perhaps in tiles
            return read_image(image)


@dataclass(repr=False, eq=False)
class Detections(Instances, Result):
    """Objects found in one image: ``labels``, ``boxes``, ``masks`` and ``scores`` as in `Instances`, best first.

    ``len`` is their number. An index, a slice, a list of indices or a condition gives the `Detections` of those
    objects: ``found[0]``, ``found[:10]``, ``found[found.scores > 0.5]``, ``found['person']``.

    Args:
        classes: names, indexed by the labels.
        size: (height, width) of the image.
        palette: one RGB colour per class; default: colours of our own.
        image: what was predicted, a file or RGB uint8 (H, W, 3), for `draw`.
    """
    classes: Sequence[str] = ()
    size: tuple[int, int] = (0, 0)
    palette: Sequence[Colour] | None = None
    image: str | os.PathLike | np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """Class name of every object."""
        return [self.classes[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which) -> 'Detections':
        """The objects of an index, a slice, indices, a bool array (N,) or a class name.

        Raises:
            IndexError: no such object, or a condition of another length.
            UserError: no such class.
        """
        if isinstance(which, str):
            which = self.labels == class_index(self.classes, which)
        elif isinstance(which, int | np.integer):
            which = [range(len(self))[which]]
        elif not isinstance(which, slice):
            which = np.asarray(which)
            which = which if len(which) else which.astype(int)
        return replace(self, **{name: values[which] for name in ('labels', 'boxes', 'masks', 'scores')
                                if (values := getattr(self, name)) is not None})

    def __iter__(self) -> Iterator['Detections']:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        counts = {name: self.names.count(name) for name in dict.fromkeys(self.names)}
        counts = sorted(counts.items(), key=lambda entry: -entry[1])
        found = f': {few([f"{name} {count}" for name, count in counts])}' if counts else ''
        return f'Detections({len(self)} objects in {self.size[1]}x{self.size[0]}{found})'

    def draw(self, image=None, **options) -> np.ndarray:
        """The image with boxes, masks, class names and scores, RGB.

        Args:
            image: a file, a PIL image or RGB uint8 (H, W, 3); default: the one that was predicted.
            options: of `visualization.draw.draw_instances`, as ``hide=['scores']`` or ``colour_by='instance'``.

        Raises:
            UserError: there is no image, or it cannot be read.
        """
        return draw_instances(self._image(image), self, self.classes, self.colours, min_score=0, **options)

    def to_coco(self, image_id: int = 1, first_id: int = 1) -> list[dict]:
        """The objects as annotations in COCO's format, with scores, and masks as run lengths.

        Args:
            image_id: of every annotation.
            first_id: of the first annotation; categories count from 1, in the order of `classes`.
        """
        annotations = []
        for index in range(len(self)):
            x1, y1, x2, y2 = (float(value) for value in self.boxes[index])
            annotation = dict(id=first_id + index, image_id=image_id, category_id=int(self.labels[index]) + 1,
                              iscrowd=0, score=round(float(self.scores[index]), 5),
                              bbox=[round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                              area=round((x2 - x1) * (y2 - y1), 2))
            if self.masks is not None:
                encoded = hasattr(self.masks, 'to_json')  # `EncodedMasks`
                annotation |= dict(segmentation=self.masks.to_json(index), area=int(self.masks.areas[index])) \
                    if encoded else dict(segmentation=_run_lengths(self.masks[index]),
                                         area=int(self.masks[index].sum()))
            annotations.append(annotation)
        return annotations

    def to_supervision(self):
        """The objects as ``supervision.Detections``.

        Raises:
            UserError: the package supervision is not installed.
        """
        return _supervision().Detections(
            xyxy=np.asarray(self.boxes, np.float32).reshape(-1, 4),
            mask=None if self.masks is None else np.asarray(self.masks),
            confidence=np.asarray(self.scores, np.float32), class_id=np.asarray(self.labels, int),
            data={'class_name': np.array(self.names, str)})


@dataclass(repr=False, eq=False)
class Segmentation(Result):
    """The class of every pixel of one image; iteration gives the names of the classes that occur, the largest first.

    ``len`` is the number of classes that occur, ``found['road']`` or ``found[0]`` the pixels of a class, bool (H, W).

    Args:
        labels: (H, W) of the image, indices into `classes`; uint8, or uint16 with more than 255 classes.
        classes: names, indexed by the labels.
        palette: one RGB colour per class; default: colours of our own.
        image: what was predicted, a file or RGB uint8 (H, W, 3), for `draw`.
    """
    labels: np.ndarray
    classes: Sequence[str]
    palette: Sequence[Colour] | None = None
    image: str | os.PathLike | np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.labels.shape

    @property
    def counts(self) -> np.ndarray:
        """Pixels of every class, int64 (classes,)."""
        return sum(np.bincount(self.labels[top:top + 512].ravel(), minlength=len(self.classes))[:len(self.classes)]
                   for top in range(0, len(self.labels), 512))  # not all at once: numpy counts a copy in 64 bits

    @property
    def shares(self) -> dict[str, float]:
        """Share of the image, 0 to 1, of every class that occurs, the largest first."""
        counts = self.counts
        order = np.argsort(-counts, kind='stable')
        return {self.classes[index]: float(counts[index] / self.labels.size) for index in order if counts[index]}

    def __len__(self) -> int:
        return len(self.shares)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shares)

    def __contains__(self, name: str) -> bool:
        return name in self.shares

    def __getitem__(self, which: str | int) -> np.ndarray:
        """The pixels of a class, by its name or index, bool (H, W).

        Raises:
            UserError, IndexError: no class of that name or index.
        """
        return self.labels == (class_index(self.classes, which) if isinstance(which, str)
                               else range(len(self.classes))[which])

    def __repr__(self) -> str:
        shares = few([f'{name} {share:.0%}' for name, share in self.shares.items()])
        return f'Segmentation({len(self)} classes in {self.size[1]}x{self.size[0]}: {shares})'

    def draw(self, image=None, **options) -> np.ndarray:
        """The image with the colour of every pixel's class over it, RGB.

        Args:
            image: a file, a PIL image or RGB uint8 (H, W, 3); default: the one that was predicted.
            options: of `visualization.draw.draw_segmentation`, as ``opacity=0.4``.

        Raises:
            UserError: there is no image, or it cannot be read.
        """
        return draw_segmentation(self._image(image), self.labels, self.colours, **options)

    def save_labels(self, path: str | os.PathLike) -> None:
        """Write the label map as PNG: 8 bits with the class colours as palette; 16 bits beyond 255 classes."""
        image = Image.fromarray(self.labels)
        if self.labels.dtype == np.uint8:
            image.putpalette([value for colour in self.colours for value in colour])
        with atomic_write(path) as part:
            image.save(part, 'png')

    def to_coco(self, image_id: int = 1, first_id: int = 1) -> list[dict]:
        """One annotation in COCO's format for each class that occurs; arguments as of `Detections.to_coco`."""
        annotations = []
        for name in self:
            mask = self[name]
            annotations.append(dict(
                id=first_id + len(annotations), image_id=image_id, category_id=list(self.classes).index(name) + 1,
                iscrowd=0, bbox=list(cv2.boundingRect(mask.astype(np.uint8))), area=int(mask.sum()),
                segmentation=_run_lengths(mask)))
        return annotations

    def to_supervision(self):
        """One mask for each class that occurs, as ``supervision.Detections``.

        Raises:
            UserError: the package supervision is not installed.
        """
        masks = np.array([self[name] for name in self]).reshape(-1, *self.size)
        corners = [(x, y, x + width, y + height) for x, y, width, height in
                   (cv2.boundingRect(mask.astype(np.uint8)) for mask in masks)]
        return _supervision().Detections(
            xyxy=np.array(corners, np.float32).reshape(-1, 4), mask=masks,
            class_id=np.array([list(self.classes).index(name) for name in self], int),
            data={'class_name': np.array(list(self), str)})


def class_index(classes: Sequence[str], name: str) -> int:
    """Place of a class among the names.

    Raises:
        UserError: there is none of that name.
    """
    if name not in classes:
        raise UserError(f'there is no class {name!r}: expected one of {few(classes, 20)}')
    return list(classes).index(name)


def _run_lengths(mask: np.ndarray) -> dict:
    from ..visualization.predictions import encode_mask  # late: needs pycocotools, and drawing and arrays do not
    return encode_mask(mask)


def _supervision():
    try:
        import supervision
    except ImportError as error:
        raise UserError('to_supervision needs the package supervision, which is not installed: '
                        'pip install supervision') from error
    return supervision
