"""Images in, plain results out, from an exported file: what `convnext_dense.Predictor` does, without torch."""
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from ..errors import UserError
from ..inference.arrays import to_rgb
from ..inference.results import Detections, Segmentation
from ..inference.tiled_labels import Scores, label_map, segment_tiled, upsampling
from ..inference.tiling import Tiling, detect_tiled
from ..utils.images import TILED_MAX_PIXELS, OversizedImageError, allow_pixels
from ..utils.windows import window_starts
from ..visualization.draw import UNREADABLE, Colour, check_readable, read_image
from .backends import open_model
from .images import paste, prepare

Picture = str | os.PathLike | np.ndarray | Image.Image | BinaryIO


@dataclass(frozen=True)
class Sample:
    """One image, ready for the graph.

    Args:
        inputs: uint8 (3, h, w), what the graph takes.
        size: (height, width) of the image.
        resized: (height, width) of it in `inputs`, without padding.
    """
    inputs: np.ndarray
    size: tuple[int, int]
    resized: tuple[int, int]


@dataclass(frozen=True)
class LargeImage:
    """An image that is cut into tiles.

    Args:
        image: RGB, uint8 (H, W, 3).
    """
    image: np.ndarray


class Predictor:
    """An exported model, ready for images.

    Args:
        model: a file that ``tools/export.py`` wrote: ONNX (.onnx), OpenVINO (.xml) or torch.export (.pt2).
        device: 'auto', 'cpu' or 'cuda'; for ONNX also an execution provider, for OpenVINO one of its devices.
        threads: of the CPU; None leaves it to the runtime.
        score_thr: detections below this score are left out, 0 to 1; the graph leaves out those below the config's.
        tile: side in pixels of the tiles into which larger images are cut (docs/large_images.md); default: never.
        overlap: of neighbouring tiles, as a part of their side, 0 to 0.9.

    Attributes:
        task: 'det' or 'seg'.
        classes: names, in the order of the labels.
        palette: RGB colour of every class.
        metadata: all that the file says of itself (`runtime.metadata.Metadata`).

    Raises:
        UserError: no such file, one that is damaged or of another origin, a runtime or device that is not there, or
            tiles that cannot work.
    """

    def __init__(self, model: str | os.PathLike, device: str = 'auto', threads: int | None = None,
                 score_thr: float = 0.3, *, tile: int | None = None, overlap: float = 0.2):
        self.tiling = None if tile is None else Tiling(tile, overlap)
        if not 0 <= score_thr <= 1:
            raise UserError(f'score_thr={score_thr}: expected a score from 0 to 1')
        self.score_thr, self.backend = score_thr, open_model(model, device, threads)
        self.metadata = self.backend.metadata
        self.task, self.classes = self.metadata.task, tuple(self.metadata.classes)
        self.palette: list[Colour] = [tuple(colour) for colour in self.metadata.palette]

    def __call__(self, images: Picture | Sequence[Picture], batch_size: int = 1,
                 value_range: tuple[float, float] | None = None):
        """Predict one image, or a list of them.

        Args:
            images: a path, a file object, a PIL image or an array (`inference.arrays.to_rgb`); a list gives a list of
                results in its order.
            batch_size: images that go through the network together, where they have the same size.
            value_range: (low, high), the values of black and white in arrays and PIL images; not for files.

        Returns:
            `Detections` or `Segmentation`, at the size of the image.

        Raises:
            UserError: an image cannot be read, or an array is no image.
        """
        single = isinstance(images, str | os.PathLike | np.ndarray | Image.Image) or hasattr(images, 'read')
        images = [images] if single else list(images)
        results = []
        for start in range(0, len(images), batch_size):
            some = images[start:start + batch_size]
            read = [self._read(image, value_range) for image in some]
            found = self.predict([self._prepare(image) for image in read])
            for result, source, array in zip(found, some, read, strict=True):
                result.image = source if isinstance(source, str | os.PathLike) else array
            results += found
        return results[0] if single else results

    def load(self, image: Picture, value_range: tuple[float, float] | None = None) -> Sample | LargeImage:
        """One image, read and resized, for `predict`; arguments and errors as of a call."""
        return self._prepare(self._read(image, value_range))

    def _read(self, image: Picture, value_range: tuple[float, float] | None) -> np.ndarray:
        with nullcontext() if self.tiling is None else allow_pixels(TILED_MAX_PIXELS):
            try:
                return _read(image, value_range)
            except OversizedImageError as error:
                if self.tiling is None:
                    raise UserError(f'{error}, or predict it in tiles (--tile 1024)') from error
                raise

    def _prepare(self, image: np.ndarray) -> Sample | LargeImage:
        if self.tiling is not None and self.tiling.cuts(*image.shape[:2]):
            return LargeImage(image)
        return self._sample(image)

    def _sample(self, image: np.ndarray) -> Sample:
        inputs, resized = prepare(image, self.metadata)
        return Sample(inputs, image.shape[:2], resized)

    def predict(self, samples: Sequence[Sample | LargeImage]) -> list[Detections | Segmentation]:
        """Results of samples that `load` gave; those of one shape go through the network together."""
        by_shape = defaultdict(list)
        results = [None] * len(samples)
        for index, sample in enumerate(samples):
            if isinstance(sample, LargeImage):
                results[index] = self._predict_tiled(sample.image)
            else:
                by_shape[sample.inputs.shape].append(index)
        for indices in by_shape.values():
            together = self.metadata.batch or len(indices)
            for start in range(0, len(indices), together):
                some = indices[start:start + together]
                found = self._run([samples[index] for index in some])
                for index, result in zip(some, found, strict=True):
                    results[index] = result
        return results

    def class_scores(self, sample: Sample) -> np.ndarray:
        """Scores (classes, H, W) of a segmentor at the size of the image, before the best class is chosen."""
        total = np.zeros((*sample.size, len(self.classes)), np.float32)
        for part in self._parts([sample])[0]:
            total[part.top:part.bottom, part.left:part.right] += part.upsampled(np.arange(len(self.classes)))
        return total.transpose(2, 0, 1)

    def _run(self, samples: list[Sample]) -> list[Detections | Segmentation]:
        """Results of samples of one shape."""
        if self.task == 'seg':
            return [Segmentation(label_map(parts, sample.size), self.classes, self.palette)
                    for parts, sample in zip(self._parts(samples), samples, strict=True)]
        # `above` has the best one last
        return [found.above(self.score_thr)[::-1] for found in self._detect(samples)]

    def _detect(self, samples: list[Sample]) -> list[Detections]:
        """All that the graph gives for samples of one shape."""
        outputs = self._outputs(np.stack([sample.inputs for sample in samples]))
        return [self._detections([output[index] for output in outputs], sample)
                for index, sample in enumerate(samples)]

    def _predict_tiled(self, image: np.ndarray) -> Detections | Segmentation:
        together = self.metadata.batch or 1

        def samples(tiles: Sequence[np.ndarray]) -> list[Sample]:
            return [self._sample(tile) for tile in tiles]

        if self.task == 'seg':
            labels = segment_tiled(image, self.tiling, lambda tiles: self._parts(samples(tiles)), together)
            return Segmentation(labels, self.classes, self.palette)
        found = detect_tiled(image, self.tiling, lambda tiles: self._detect(samples(tiles)), self.classes, together)
        found = replace(found, palette=self.palette)
        return found[(found.scores >= self.score_thr) & np.isfinite(found.boxes).all(axis=1)]

    def _parts(self, samples: Sequence[Sample]) -> list[list[Scores]]:
        """Class scores of the windows of samples of one size, as small as the graph gives them."""
        found = []
        for windows, sample in zip(self._windows(samples), samples, strict=True):
            sides, places = sample.inputs.shape[1:], [place for place, _ in windows]
            padding = [(0, side - inside) for side, inside in zip(sides, sample.resized, strict=True)]
            found.append([upsampling(scores.transpose(1, 2, 0), place, places, sides, padding, sample.size)
                          for place, scores in windows])
        return found

    def _outputs(self, images: np.ndarray) -> list[np.ndarray]:
        """The graph's outputs for a batch, filled up where the graph is for a larger one."""
        count, batch = len(images), self.metadata.batch or len(images)
        if count < batch:
            images = np.concatenate([images, np.repeat(images[-1:], batch - count, 0)])
        return [output[:count] for output in self.backend.run(images)]

    def _detections(self, outputs: list[np.ndarray], sample: Sample) -> Detections:
        boxes, scores, labels, *masks = outputs
        kept = scores > 0
        ratio = np.array([resized / side for side, resized in zip(sample.size, sample.resized, strict=True)][::-1] * 2,
                         np.float32)
        boxes = boxes[kept] / ratio
        if masks:
            masks = paste(masks[0][kept], boxes, sample.size, self.metadata.mask_threshold)
        return Detections(labels[kept].astype(np.int64), boxes, masks if len(outputs) > 3 else None, scores[kept],
                          self.classes, tuple(sample.size), self.palette)

    def _windows(self, samples: list[Sample]) -> list[list[tuple]]:
        """For every sample of one shape: (place, class scores) of each window, as the graph gives them."""
        images = np.stack([sample.inputs for sample in samples])
        sides = images.shape[2:]
        crop = [min(*pair) for pair in zip(self.metadata.window or sides, sides, strict=True)]
        starts = [window_starts(*along) for along in zip(sides, crop, self.metadata.stride or crop, strict=True)]
        found = [[] for _ in samples]
        for y in starts[0]:
            for x in starts[1]:
                place = slice(y, y + crop[0]), slice(x, x + crop[1])
                scores, = self._outputs(np.ascontiguousarray(images[(..., *place)]))
                for windows, own in zip(found, scores, strict=True):
                    windows.append((place, own))
        return found


def _read(image: Picture, value_range: tuple[float, float] | None) -> np.ndarray:
    """RGB, uint8 (H, W, 3), of a file, a file object or an image in memory."""
    if isinstance(image, str | os.PathLike):
        return read_image(os.fspath(image))
    if not hasattr(image, 'read'):
        return to_rgb(image, value_range)
    check_readable(image, 'the file object')
    image.seek(0)
    found = cv2.imdecode(np.frombuffer(image.read(), np.uint8), cv2.IMREAD_COLOR)
    if found is None:
        raise UserError(UNREADABLE.format('the file object'))
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
