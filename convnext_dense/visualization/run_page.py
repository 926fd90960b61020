"""What one trained and evaluated run shows on a page: its figures, curves, and predictions beside the annotations."""
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from . import curves as plots
from .draw import Colour, draw_instances, draw_segmentation, read_image
from .page import Legend, Panels, Picture, Pictures, Section, Table, Text, encode_jpeg
from .predictions import (
    predicted_instances,
    predicted_labels,
    read_coco_instances,
    read_label_map,
    read_predictions,
)


@dataclass
class Run:
    """Where one run's results lie.

    Args:
        title: heading on the page.
        config: name of the config file, as shown.
        work_dir: of the train tool; holds the training log.
        metrics_file: the test tool's `metrics.json`.
        predictions_file: the test tool's `--out` file.
        seconds: training and evaluation, wall clock.
        metric_curves: which logged metrics to plot over training.
        metric_label: the y axis of that plot.
        metric_limits: its range.
    """
    title: str
    config: str
    work_dir: Path
    metrics_file: Path
    predictions_file: Path
    seconds: float
    metric_curves: Sequence[str]
    metric_label: str
    metric_limits: tuple[float, float]

    def metrics(self) -> dict[str, float]:
        """The test tool's metrics, name -> value."""
        return json.loads(Path(self.metrics_file).read_text())

    def metric(self, name: str) -> float:
        """One of them.

        Raises:
            UserError: the evaluation did not report it.
        """
        metrics = self.metrics()
        if metrics.get(name) is None:
            raise UserError(f'{self.metrics_file} has no value for {name}: it holds {", ".join(sorted(metrics))}')
        return metrics[name]


@dataclass
class Sample:
    """One evaluated image: its file name, and titled pictures of what is known and what was predicted."""
    name: str
    panels: list[tuple[str, np.ndarray]]


def run_section(run: Run, samples: Sequence[Sample], legend: Sequence[tuple[str, Colour]], note: str) -> Section:
    """The section of a run: loss and metric curves, all metrics, and samples; `note` says which samples."""
    logged = plots.read_scalars(run.work_dir)
    losses = plots.plot_curves(logged, plots.losses_in(logged), f'{run.title}: training loss', 'loss')
    metric = plots.plot_curves(logged, [name for name in run.metric_curves if name in logged],
                               f'{run.title}: validation while training', run.metric_label, run.metric_limits)
    return Section(run.title, [
        Text(f'{run.config}, trained and evaluated in {run.seconds:.0f} seconds.'),
        Pictures([Picture(losses, 'Loss and its parts, as logged during training.', 'plot of the training losses'),
                  Picture(metric, 'Measured on the validation images during training.',
                          'plot of the validation metrics')]),
        Table(('metric', 'value'), [(name, _shown(value)) for name, value in run.metrics().items()]),
        Text(note),
        Legend(legend),
        Pictures([Panels([(title, encode_jpeg(image)) for title, image in sample.panels], sample.name)
                  for sample in samples]),
    ])


def detection_samples(predictions_file, ann_file, classes: Sequence[str], palette: Sequence[Colour], count: int,
                      min_score: float = 0.5) -> list[Sample]:
    """Ground truth and prediction of the first `count` evaluated images."""
    truth = read_coco_instances(ann_file)
    samples = []
    for prediction in read_predictions(predictions_file)[:count]:
        name, image = Path(prediction['img_path']).name, read_image(prediction['img_path'])
        found = predicted_instances(prediction)
        samples.append(Sample(name, [
            ('ground truth', draw_instances(image, truth[name], classes, palette)),
            ('prediction', draw_instances(image, found, classes, palette, min_score))]))
    return samples


def segmentation_samples(predictions_file, label_dir, palette: Sequence[Colour], count: int,
                         reduce_zero_label: bool = True) -> list[Sample]:
    """Ground truth and prediction of the first `count` evaluated images."""
    samples = []
    for prediction in read_predictions(predictions_file)[:count]:
        path = Path(prediction['img_path'])
        image, truth = read_image(path), read_label_map(Path(label_dir) / f'{path.stem}.png', reduce_zero_label)
        samples.append(Sample(path.name, [
            ('ground truth', draw_segmentation(image, truth, palette)),
            ('prediction', draw_segmentation(image, predicted_labels(prediction), palette))]))
    return samples


def _shown(value: float | None) -> str | float:
    """COCO's -1 and a null both mean that there was nothing to measure, such as no object of that size."""
    return 'nothing to measure' if value is None or value == -1 else value
