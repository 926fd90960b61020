"""Predict many files: batches of images and frames; files that cannot be predicted are reported and skipped."""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..utils.progress import progress_bar
from ..utils.read_ahead import read_ahead
from ..visualization.draw import read_image
from .inputs import Input, frame_count, read_frames
from .outputs import Output
from .results import Detections, Segmentation

if TYPE_CHECKING:  # the runtime's, which does without torch, has the same methods
    from .predictor import Predictor


@dataclass
class Job:
    """One image or frame that was read.

    Args:
        source: the file.
        frame: index of the frame in its video, None for an image.
        image: RGB of a frame, or of an image that is drawn on; else None.
        sample: as `Predictor.load` gives it.
    """
    source: Input
    frame: int | None
    image: np.ndarray | None
    sample: dict


def predict_files(predictor: 'Predictor', inputs: Sequence[Input], output: Output, batch_size: int = 1
                  ) -> list[tuple[Input, str]]:
    """Predict every file and write its results; files that cannot be predicted are skipped.

    The next batch is read while the network works on this one.

    Returns:
        (file, reason) of what was skipped.
    """
    skipped: list[tuple[Input, str]] = []
    total = sum(max(1, frame_count(source.path)) if source.is_video else 1 for source in inputs)
    jobs_left = _read(predictor, inputs, output.pictures, skipped)
    batches = iter(lambda: list(islice(jobs_left, batch_size)), [])
    with progress_bar('images', total, 'image') as bar:
        for jobs in read_ahead(batches):
            for job, result in _predict(predictor, jobs, skipped):
                output.add(job.source, job.frame, job.image, result)
            bar.update(len(jobs))
    return skipped


def _predict(predictor: 'Predictor', jobs: list[Job], skipped: list[tuple[Input, str]]
             ) -> list[tuple[Job, Detections | Segmentation]]:
    """Jobs with their results; if a batch is refused, each on its own, and what is still refused joins `skipped`."""
    try:
        return list(zip(jobs, predictor.predict([job.sample for job in jobs]), strict=True))
    except UserError as error:
        if len(jobs) == 1:
            skipped.append((jobs[0].source, str(error)))
            return []
    return [done for job in jobs for done in _predict(predictor, [job], skipped)]


def _read(predictor: 'Predictor', inputs: Sequence[Input], pictures: bool, skipped: list[tuple[Input, str]]
          ) -> Iterator[Job]:
    """Every image and frame that can be predicted; the other files are added to `skipped`."""
    for source in inputs:
        try:
            if source.is_video:
                for index, frame in enumerate(read_frames(source.path)):
                    yield Job(source, index, frame, predictor.load(frame))
            else:
                sample = predictor.load(source.path)
                image = None
                if pictures and isinstance(sample, dict) and 'image' in sample:
                    image = sample['image']  # cut into tiles, so large: it is not read twice
                elif pictures:
                    image = read_image(source.path, getattr(predictor, 'value_range', None))
                yield Job(source, None, image, sample)
        except UserError as error:
            skipped.append((source, str(error)))
