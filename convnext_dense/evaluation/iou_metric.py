"""mIoU from one confusion matrix of exact integers, instead of mmseg's IoUMetric."""
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import all_reduce, get_dist_info
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from PIL import Image
from torch import Tensor

from ..errors import UserError
from ..utils.files import atomic_write
from .confusion import areas, confusion_matrix

METRIC_NAMES = ('mIoU', 'mDice', 'mFscore')


@METRICS.register_module()
class FastIoUMetric(IoUMetric):
    """mmseg's IoUMetric, counted in one int64 confusion matrix on the predictions' device.

    The arguments, metric keys, rounding, table and PNG files are mmseg's. Differences:

    - Counts are exact; mmseg adds float32, which rounds beyond 2^24 pixels of a class.
    - Memory does not grow with the data set, and ranks exchange one tensor in one all-reduce; the integers are the
      same for any number of them.
    - Labels or predictions beyond the classes, and maps of different sizes, are a `UserError`; mmseg drops the
      former silently.

    Args:
        ignore_index: label that does not count.
        iou_metrics: of 'mIoU' (with mAcc), 'mDice' and 'mFscore' (with precision and recall), one or a list.
        nan_to_num: value that replaces nan, which absent classes have; None leaves nan.
        beta: weight of recall in the F-score.
        per_class: also return every class's metrics, as ``IoU_wall``, in percent.
        **options: mmseg's others: output_dir, format_only, collect_device, prefix.

    Attributes:
        confusion_matrix: (classes, classes) int64 of the last evaluation on the CPU: pixels by ground truth (row) and
            prediction (column).

    Raises:
        UserError: unknown ``iou_metrics``.
    """

    def __init__(self, ignore_index: int = 255, iou_metrics: str | Sequence[str] = ('mIoU',),
                 nan_to_num: int | None = None, beta: int = 1, *, per_class: bool = False, **options):
        names = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        unknown = [name for name in names if name not in METRIC_NAMES]
        if unknown:
            raise UserError(f'FastIoUMetric: iou_metrics {unknown[0]!r} is unknown; expected {", ".join(METRIC_NAMES)}')
        super().__init__(ignore_index=ignore_index, iou_metrics=names, nan_to_num=nan_to_num, beta=beta, **options)
        self.per_class = per_class
        self.confusion_matrix: Tensor | None = None
        self._forget()

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch; ``data_batch`` is not used.

        Args:
            data_samples: dicts with ``pred_sem_seg`` and ``gt_sem_seg``, each a dict whose ``data`` is a map of class
                indices, (1, H, W) or (H, W), and the paths ``img_path`` and ``seg_map_path``.

        Raises:
            UserError: maps of different sizes, or values beyond the classes; names the file.
        """
        for sample in data_samples:
            prediction = sample['pred_sem_seg']['data']
            if not self.format_only:
                self._add(sample['gt_sem_seg']['data'].to(prediction.device), prediction, _name(sample))
            if self.output_dir is not None:
                self._write(prediction, sample)

    def evaluate(self, size: int) -> dict[str, float]:
        """Metrics of the whole data set, the same on every rank.

        Args:
            size: as for `collect`.
        """
        if self.format_only:
            print_log(f'label maps written to {self.output_dir}', logger='current')
            return {}
        return self.collect(size)()

    @property
    def runs_beside(self) -> bool:
        """Whether what `collect` returns may be called in a forked process, which leaves no attributes here."""
        return not self.format_only

    def collect(self, size: int) -> Callable[[], dict[str, float]]:
        """Add the counts of all ranks; returns a function that computes the metrics.

        Args:
            size: samples in the data set; what the sampler repeats so that every rank gets as many does not count.
        """
        self.confusion_matrix = self._sum_over_ranks(size)
        self._forget()
        return partial(self._summarize, self.confusion_matrix)

    def _summarize(self, matrix: Tensor) -> dict[str, float]:
        metrics = self.compute_metrics([areas(matrix)])
        return {f'{self.prefix}/{name}' if self.prefix else name: value for name, value in metrics.items()}

    def compute_metrics(self, results: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> dict[str, float]:
        """mmseg's summary and table of ``(intersection, union, prediction, label)`` areas."""
        metrics = super().compute_metrics(results)
        if self.per_class:
            values = self.total_area_to_metrics(*results[0], self.metrics, self.nan_to_num, self.beta)
            for metric in values.keys() - {'aAcc'}:
                metrics |= {f'{metric}_{name}': float(np.round(value * 100, 2))
                            for name, value in zip(self.dataset_meta['classes'], values[metric], strict=True)}
        return metrics

    def _add(self, label: Tensor, prediction: Tensor, name: str) -> None:
        if label.shape[-2:] != prediction.shape[-2:]:
            raise UserError(f'{name} is {_size(label)}, but the prediction is {_size(prediction)} (height x width): a '
                            'label map must have the size of its image; fix it, or remove the pair from the data set')
        newest = confusion_matrix(label, prediction, len(self.dataset_meta['classes']), self.ignore_index, name)
        self._counts = newest.clone() if self._counts is None else self._counts.add_(newest)
        self._newest = newest
        self._samples += 1

    def _sum_over_ranks(self, size: int) -> Tensor:
        """The matrix of all ranks, without samples that the sampler repeated.

        mmengine deals samples to ranks in turn and starts again from the first until all have as many, so at most the
        newest of a rank is a repetition, and its place in the order is beyond the data set.
        """
        rank, ranks = get_dist_info()
        classes = len(self.dataset_meta['classes'])
        nothing = torch.zeros(classes, classes, dtype=torch.int64)
        counts, newest = (self._counts, self._newest) if self._samples else (nothing, nothing)
        repeated = self._samples > 0 and (self._samples - 1) * ranks + rank >= size
        message = torch.cat([torch.stack([counts, newest * repeated]).flatten(),
                             counts.new_tensor([self._samples, repeated])])
        all_reduce(message)
        counts, newest = message[:-2].view(2, classes, classes).cpu()
        samples, repeated = message[-2:].tolist()
        if samples > size:
            counts, samples = counts - newest, samples - repeated
        if samples != size:
            print_log(f'mIoU of {samples} images, but the data set has {size}', logger='current', level=logging.WARNING)
        return counts

    def _forget(self) -> None:
        """Reset the counts: the sum, its newest part, and the number of samples."""
        self._counts = self._newest = None
        self._samples = 0

    def _write(self, prediction: Tensor, sample: dict) -> None:
        """One PNG as mmseg writes it: labels from 1 where the data set's zero label was reduced away."""
        labels = prediction.squeeze().cpu().numpy() + int(bool(sample.get('reduce_zero_label', False)))
        file = Path(self.output_dir) / f'{Path(sample["img_path"]).stem}.png'
        with atomic_write(file) as part:
            Image.fromarray(labels.astype(np.uint8 if labels.max() < 256 else np.uint16)).save(part, format='PNG')


def _name(sample: dict) -> str:
    return sample.get('seg_map_path') or f'the label map of {sample.get("img_path", "a sample without a path")}'


def _size(labels: Tensor) -> str:
    return 'x'.join(map(str, labels.shape[-2:]))
