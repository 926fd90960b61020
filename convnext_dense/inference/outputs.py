"""The results of predicting files: pictures, videos, label maps and one JSON file."""
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from ..errors import UserError
from ..utils.files import atomic_write
from ..visualization.draw import Colour, draw_legend
from ..visualization.page import encode_jpeg, write_text
from .inputs import Input, frame_rate
from .results import Detections, Segmentation

LEGEND_ROWS = 3  # below a video, whose frames must have one size
SAVE_SECONDS = 30  # between two savings of predictions.json, or 20 times as long as the last one took


class Output:
    """A folder of results; use it as a context manager, so that finished results are written after an error, too.

    ``predictions.json`` is also saved from time to time, so that a killed process loses little.

    - ``predictions.json``: ``images`` (id, file_name, width, height; frame of a video), ``categories`` (id, name,
      colour) and, for detection, ``annotations`` in COCO's format with score and run-length masks.
    - ``labels/NAME.png``, for segmentation: indices into the categories, with palette; ``labels/CLIP.mp4/000000.png``
      for the frames of a video.
    - ``pictures/NAME.jpg`` and ``pictures/NAME.mp4``.

    Args:
        folder: is created; files of the same names are replaced.
        classes: names, indexed by the labels.
        palette: one RGB colour per class.
        pictures: whether to draw.
        options: of `Detections.draw`: what is hidden, and what the colours mean.
    """

    def __init__(self, folder: str | os.PathLike, classes: Sequence[str], palette: Sequence[Colour],
                 pictures: bool = True, options: Mapping | None = None):
        self.folder, self.classes, self.palette = Path(folder), classes, palette
        self.pictures, self.options = pictures, options or {}
        # category ids count from 1, as in COCO; the values of a label map are the places in this list
        self.categories = [dict(id=index + 1, name=name, color=list(colour))
                           for index, (name, colour) in enumerate(zip(classes, palette, strict=True))]
        self.images: list[dict] = []
        self.annotations: list[dict] | None = None
        self.video: Video | None = None
        self.next_saving = time.monotonic() + SAVE_SECONDS
        self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> 'Output':
        return self

    def __exit__(self, *_) -> None:
        try:
            self._end_video()
        finally:
            self._save()

    def add(self, source: Input, frame: int | None, image: np.ndarray | None, result: Detections | Segmentation
            ) -> None:
        """Write the result of an image, or of a video's frame with that index (from 0).

        Args:
            image: RGB (H, W, 3), to draw on; None writes no picture.
        """
        entry = dict(id=len(self.images) + 1, file_name=str(source.path))
        if frame is not None:
            entry['frame'] = frame
        if isinstance(result, Segmentation):
            entry['labels'] = f'labels/{source.name}.png' if frame is None else \
                f'labels/{source.name}{source.path.suffix}/{frame:06}.png'
            result.save_labels(self.folder / entry['labels'])
        else:
            self.annotations = self.annotations or []
            self.annotations += result.to_coco(entry['id'], len(self.annotations) + 1)
        height, width = result.size
        self.images.append({**entry, 'width': width, 'height': height})
        if self.pictures and image is not None:
            self._draw(source, frame, image, result)
        if time.monotonic() > self.next_saving:
            self._save()

    def _save(self) -> None:
        """Write predictions.json with everything so far."""
        start = time.monotonic()
        content = dict(images=self.images, categories=self.categories)
        if self.annotations is not None:
            content['annotations'] = self.annotations
        write_text(self.folder / 'predictions.json', json.dumps(content))
        end = time.monotonic()
        self.next_saving = end + max(SAVE_SECONDS, 20 * (end - start))

    def _draw(self, source: Input, frame: int | None, image: np.ndarray, result: Detections | Segmentation) -> None:
        rows = None if frame is None else LEGEND_ROWS
        if isinstance(result, Segmentation):
            picture = result.draw(image)
        else:
            picture = result.draw(image, **self.options)
        counts = result.counts if isinstance(result, Segmentation) else \
            np.bincount(result.labels, minlength=len(self.classes))
        shown = [int(label) for label in np.argsort(-counts, kind='stable') if counts[label]]
        if shown or rows:
            legend = draw_legend(self.classes, self.palette, picture.shape[1], shown, rows)
            picture = np.vstack([picture, legend])
        if frame is None:
            with atomic_write(self.folder / f'pictures/{source.name}.jpg') as part:
                part.write_bytes(encode_jpeg(picture))
            return
        if self.video is None or self.video.source != source:
            self._end_video()
            self.video = Video(source, self.folder / f'pictures/{source.name}.mp4', picture.shape)
        self.video.write(picture)

    def _end_video(self) -> None:
        if self.video is not None:
            self.video.end()
            self.video = None


class Video:
    """An MP4 file with the frame rate of its source; it has its name when it is complete.

    Args:
        source: the video that is drawn on.
        path: of the file to write.
        shape: (height, width, 3) of every picture.

    Raises:
        UserError: OpenCV cannot write videos here.
    """

    def __init__(self, source: Input, path: Path, shape: tuple[int, int, int]):
        self.source, self.opened = source, ExitStack()
        part = self.opened.enter_context(atomic_write(path))
        self.writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*'mp4v'), frame_rate(source.path),
                                      shape[1::-1])
        if not self.writer.isOpened():
            raise UserError(f'cannot write the video {path}: OpenCV has no MPEG-4 encoder here, use --no-pictures')

    def write(self, picture: np.ndarray) -> None:
        self.writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def end(self) -> None:
        self.writer.release()
        self.opened.close()
