"""COCO box and mask AP through faster-coco-eval, instead of mmdet's CocoMetric."""
import itertools
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.dist import broadcast_object_list, gather_object, is_main_process
from mmengine.logging import print_log
from terminaltables import AsciiTable

from ..errors import UserError, few
from ..utils.run_lengths import encode_masks
from .coco_data import category_ids, check_result, load_ground_truth, to_coco, write_detections
from .coco_eval import BACKENDS, CocoEvaluation, check_segmentations, evaluate
from .mask_overlaps import mask_overlaps

METRIC_NAMES = ('bbox', 'segm', 'proposal', 'proposal_fast')


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """mmdet's CocoMetric with the same metrics in a fraction of the time, and without its silent cases.

    The arguments, metric keys, rounding, tables and json files are mmdet's, with these differences:

    - A model that detects nothing has an AP of 0, as pycocotools counts, and a warning; mmdet returns no metric.
    - What has no ground truth (a class, a size) is nan, where mmdet has -1, and is named in the log.
    - AP by class has a key for boxes and one for masks, ``bbox_person_precision`` and ``segm_person_precision``; in
      mmdet the second overwrites the first.
    - ``AR@N`` names the actual ``proposal_nums``; mmdet always writes 100, 300 and 1000.
    - Unknown images, labels beyond the classes, scores and boxes that are not finite, masks of another size than the
      image and annotation files that lack a key are a `UserError`, those of predictions at the first image.

    Args:
        ann_file: COCO ground truth; None takes the annotations in the data set's samples.
        metric: of 'bbox', 'segm', 'proposal' and 'proposal_fast', one or a list.
        backend: 'faster' (faster-coco-eval) or 'pycocotools', the slow reference.
        sort_categories: take the categories in the order of their ids, not of the file.
        **options: mmdet's others: classwise, proposal_nums, iou_thrs, metric_items, format_only, outfile_prefix,
            backend_args, collect_device, prefix. ``use_mp_eval`` is accepted and not needed.

    Attributes:
        evaluations: metric -> `CocoEvaluation` of the last evaluation, unrounded; on the main process, and not of a
            validation beside training.

    Raises:
        UserError: an argument or an annotation file that cannot work.
    """

    def __init__(self, ann_file: str | None = None, metric: str | list[str] = 'bbox', *, backend: str = 'faster',
                 sort_categories: bool = False, **options):
        _check_choice('metric', [metric] if isinstance(metric, str) else metric, METRIC_NAMES)
        _check_choice('backend', [backend], BACKENDS)
        super().__init__(metric=metric if isinstance(metric, str) else list(metric), **options)
        _check_choice('metric_items', self.metric_items or (), self._item_names())
        self.backend, self.ann_file = backend, ann_file or 'the ground truth of the data set'
        self.evaluations: dict[str, CocoEvaluation] = {}
        if ann_file is not None:
            self._coco_api = load_ground_truth(ann_file, self.backend_args, annotated=not self.format_only)
            if 'segm' in self.metrics and not self.format_only:
                check_segmentations(self._coco_api)
            if sort_categories:
                self._coco_api.dataset['categories'].sort(key=lambda category: category['id'])

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the results of a batch, as mmdet does; ``data_batch`` is not used.

        Raises:
            UserError: as of `check_result`, at the first image with such a result.
        """
        known = len(self.results)
        super().process(data_batch, [with_encoded_masks(sample) for sample in data_samples])
        for truth, result in self.results[known:]:
            image = {**truth, 'id': truth['img_id']} if self._coco_api is None else \
                self._coco_api.imgs.get(result['img_id'])
            check_result(result, len(self.dataset_meta['classes']), image, self.ann_file)
            if self._matches_masks and image is not None and 'masks' in result:
                result |= mask_overlaps(result, self._coco_api, self._categories(), max(self.proposal_nums))
                del result['masks']

    def evaluate(self, size: int) -> dict[str, float]:
        """Metrics of the whole data set, the same on every rank; rank 0 computes them.

        Args:
            size: as for `collect`.
        """
        compute = self.collect(size)
        metrics = [compute() if is_main_process() else None]
        broadcast_object_list(metrics)
        return metrics[0]

    @property
    def runs_beside(self) -> bool:
        """Whether what `collect` returns may be called in a forked process, which leaves no attributes here."""
        return self._coco_api is not None and not self.format_only

    def collect(self, size: int) -> Callable[[], dict[str, float]]:
        """Send what was processed to rank 0; returns a function that computes the metrics there.

        mmengine passes results through files in the working directory, which nodes need not share, and loses some
        where ranks have unequal shares. Here they are sent, in the order of the samples.

        Args:
            size: samples in the data set; what the sampler repeats so that every rank gets as many does not count.
        """
        parts = gather_object(self.results, dst=0)
        self.results = []
        return partial(self._summarize, parts, size)

    def _summarize(self, parts: list[list], size: int) -> dict[str, float]:
        """Metrics of what all ranks have sent."""
        dealt = itertools.chain.from_iterable(itertools.zip_longest(*parts))
        results = [result for result in dealt if result is not None][:size]
        if len(results) != size:
            print_log(f'{len(results)} images were predicted, but the data set has {size}', logger='current',
                      level=logging.WARNING)
        metrics = self.compute_metrics(results)
        return {f'{self.prefix}/{name}' if self.prefix else name: value for name, value in metrics.items()}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Metrics of all images' ``(ground truth, result)`` pairs, under mmdet's names."""
        truths, results = zip(*results, strict=True) if results else ((), ())
        if self._coco_api is None:
            self._coco_api = self._collect_ground_truth(truths)
        self.cat_ids = self._categories()
        self.img_ids = self._coco_api.get_img_ids()
        detections = to_coco(results, self._coco_api, self.cat_ids, self.ann_file)
        if self.outfile_prefix is not None:
            files = write_detections(detections, self.outfile_prefix)
            print_log(f'detections written to {", ".join(files.values())}', logger='current')
        if self.format_only:
            return {}
        if not detections['bbox']:
            print_log('no detection on the whole data set (every score was below score_thr of the test_cfg): every AP '
                      'and AR is 0', logger='current', level=logging.WARNING)
        metrics = {}
        for metric in self.metrics:
            print_log(f'Evaluating {metric}...', logger='current')
            if metric == 'proposal_fast':
                metrics |= self._proposal_recall(results)
            else:
                metrics |= self._metrics(metric, detections, _overlaps(results))
        return metrics

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict[str, str]:
        """Write the results of images as COCO json files; kind -> file name."""
        files = write_detections(to_coco(results, self._coco_api, self.cat_ids, self.ann_file), outfile_prefix)
        return {**files, 'proposal': files['bbox']}

    def _collect_ground_truth(self, truths: Sequence[dict]):
        """Index of the ground truth in the samples; its JSON file is kept where ``outfile_prefix`` says."""
        with TemporaryDirectory() as folder:
            file = self.gt_to_coco_json(truths, self.outfile_prefix or str(Path(folder) / 'results'))
            return load_ground_truth(file, annotated=False)

    @property
    def _matches_masks(self) -> bool:
        """Whether an image's masks are matched when it comes, and dropped; every process does its own images."""
        return (self._coco_api is not None and self.backend == 'faster' and 'segm' in self.metrics
                and self.outfile_prefix is None and not self.format_only)

    def _categories(self) -> list[int]:
        """Category id of each label."""
        if self.cat_ids is None:
            self.cat_ids = category_ids(self._coco_api, self.dataset_meta['classes'], self.ann_file)
        return self.cat_ids

    def _metrics(self, metric: str, detections: dict[str, list[dict]], overlaps: dict | None) -> dict[str, float]:
        """Evaluate 'bbox', 'segm' or 'proposal'; logs tables and returns what ``metric_items`` asks for."""
        kind = 'bbox' if metric == 'proposal' else metric
        if kind not in detections:
            raise UserError("metric 'segm': the model returns no masks, only boxes; ask for metric='bbox', or use a "
                            'model with a mask head')
        result = evaluate(self._coco_api, detections[kind], kind, backend=self.backend, cat_ids=self.cat_ids,
                          max_dets=self.proposal_nums, iou_thrs=self.iou_thrs, use_cats=metric != 'proposal',
                          mask_ious=overlaps if kind == 'segm' else None)
        self.evaluations[metric] = result
        stats = result.stats()
        print_log(_summary(metric, stats), logger='current')
        if metric == 'proposal':
            items = self.metric_items or [name for name in stats if name.startswith('AR')]
            return {item: _rounded(stats[item]) for item in items}
        metrics = self._classwise(metric, result) if self.classwise else {}
        items = self.metric_items or [name for name in stats if name.startswith('mAP')]
        metrics |= {f'{metric}_{item}': _rounded(stats[item]) for item in items}
        print_log(f'{metric}_mAP_copypaste: ' + ' '.join(f'{stats[name]:.3f}' for name in list(stats)[:6]),
                  logger='current')
        self._warn_about_absent(result)
        return metrics

    def _classwise(self, metric: str, result: CocoEvaluation) -> dict[str, float]:
        """AP of every class; logs the table by threshold and size."""
        columns = dict(mAP={}, mAP_50=dict(iou=0.5), mAP_75=dict(iou=0.75), mAP_s=dict(area='small'),
                       mAP_m=dict(area='medium'), mAP_l=dict(area='large'))
        names = {category: self._coco_api.cats[category]['name'] for category in self.cat_ids}
        rows = [[name, *(_rounded(result.ap(category=category, **column)) for column in columns.values())]
                for category, name in names.items()]
        print_log('\n' + AsciiTable([['category', *columns], *rows]).table, logger='current')
        return {f'{metric}_{name}_precision': ap for name, ap, *_ in rows}

    def _proposal_recall(self, results: Sequence[dict]) -> dict[str, float]:
        """mmdet's recall of class-agnostic boxes, each image's against its own ground truth."""
        found = {result['img_id']: result for result in results}
        nothing = dict(bboxes=np.zeros((0, 4), np.float32))
        recalls = self.fast_eval_recall([found.get(image, nothing) for image in self.img_ids], self.proposal_nums,
                                        np.atleast_1d(self.iou_thrs))
        metrics = {f'AR@{number}': value for number, value in zip(self.proposal_nums, recalls, strict=True)}
        print_log(''.join(f'\n{name}\t{value:.4f}' for name, value in metrics.items()), logger='current')
        return metrics

    def _warn_about_absent(self, result: CocoEvaluation) -> None:
        absent = result.without_ground_truth()
        if absent:
            names = few([self._coco_api.cats[category]['name'] for category in absent])
            print_log(f'{len(absent)} of {len(self.cat_ids)} classes have no object in {self.ann_file} ({names}): '
                      'their AP is nan and not part of the means', logger='current', level=logging.WARNING)

    def _item_names(self) -> list[str]:
        """What ``metric_items`` may name."""
        numbers = sorted(self.proposal_nums)
        return ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', *(f'AR@{number}' for number in numbers),
                *(f'AR_{size}@{numbers[-1]}' for size in 'sml')]


def _overlaps(results: Sequence[dict]) -> dict | None:
    """(image id, category id) -> IoUs of all results, or None where they have masks instead."""
    if not any('mask_ious' in result for result in results):
        return None
    return {(result['img_id'], category): ious for result in results
            for category, ious in result.get('mask_ious', {}).items()}


def with_encoded_masks(sample: dict) -> dict:
    """The sample with its predicted masks, if they are a bool tensor (N, H, W), as run lengths.

    pycocotools, which mmdet encodes with, walks through every pixel of the image for every mask, in another order than
    they lie in memory; here it is the rectangle that has ones. The bytes are the same.
    """
    masks = sample['pred_instances'].get('masks')
    if not isinstance(masks, torch.Tensor) or masks.dtype != torch.bool:
        return sample
    encoded = encode_masks(masks.detach().cpu().numpy(), 0, 0, tuple(masks.shape[1:]))
    return {**sample, 'pred_instances': {**sample['pred_instances'], 'masks': encoded}}


def _summary(metric: str, stats: dict[str, float]) -> str:
    return '\n' + AsciiTable([[metric, 'value'], *([name, f'{value:.3f}'] for name, value in stats.items())]).table


def _rounded(value: float) -> float:
    """To three digits, as mmdet does, by the same rule."""
    return float(np.round(value, 3))


def _check_choice(key: str, chosen: Sequence[str], allowed: Sequence[str]) -> None:
    unknown = [name for name in chosen if name not in allowed]
    if unknown:
        raise UserError(f'FastCocoMetric: {key} {unknown[0]!r} is unknown; expected {", ".join(allowed)}')
