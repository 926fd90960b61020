"""Our AP and mIoU timed beside pycocotools and mmseg on the same inputs."""
import argparse
import copy
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from ..errors import UserError
from ..mm import environment
from .detections import enlarge, generated_ground_truth, noisy_detections
from .timing import interleaved_times

NAMES = {'bbox': 'box AP', 'segm': 'mask AP'}
CLASSES, SIZE, MAPS = 150, 512, 20  # ADE20K's classes and crop, and label maps per round
GENERATED = 100  # different images where there is no data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--data-root', type=Path, default=Path('data/coco'),
                        help='COCO, whose validation ground truth is used; generated where there is none')
    parser.add_argument('--images', type=int, default=1000, help='the ground truth is repeated up to this number')
    parser.add_argument('--per-image', type=int, default=100, help='detections per image')
    parser.add_argument('--rounds', type=int, default=3, help='interleaved repetitions; the median counts')


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure; returns the measurements and the table to print.

    Raises:
        UserError: a count below 1, or an annotation file without masks to make detections of.
    """
    for name in ('images', 'per_image', 'rounds'):
        if getattr(args, name) < 1:
            raise UserError(f'benchmark eval: --{name.replace("_", "-")} must be at least 1, not {getattr(args, name)}')
    environment.require('mmdet', 'mmseg')
    source, content = read_ground_truth(args.data_root)
    content = enlarge(content, args.images)
    detections = noisy_detections(content, args.per_image)
    rows = [*(time_ap(kind, content, detections, args.rounds) for kind in NAMES),
            time_encoding(content, detections, args.rounds), time_miou(args.rounds)]
    setting = dict(ground_truth=source, images=args.images, objects=len(content['annotations']),
                   detections=len(detections), per_image=args.per_image, rounds=args.rounds, classes=CLASSES,
                   label_maps=f'{MAPS} of {SIZE}x{SIZE}', threads=torch.get_num_threads(),
                   packages=environment.versions())
    result = dict(setting=setting, rows=[row for group in rows for row in group])
    return result, format_table(result)


def read_ground_truth(root: Path) -> tuple[str, dict]:
    """Source and content of COCO ground truth with masks."""
    file = root / 'annotations/instances_val2017.json'
    if not file.is_file():
        return f'generated (no {file})', generated_ground_truth(GENERATED)
    from ..evaluation.coco_data import load_ground_truth
    content = load_ground_truth(str(file)).dataset
    if not content['annotations'] or not all(annotation.get('segmentation') for annotation in content['annotations']):
        raise UserError(f'benchmark eval: {file} has no masks, or not for every object, and mask AP needs them: name a '
                        'folder with instance annotations as --data-root')
    return str(file), content


def time_ap(kind: str, content: dict, detections: list[dict], rounds: int) -> list[dict]:
    """Rows of box or mask AP: from COCO results in memory to the twelve metrics; ground truth is loaded before."""
    from faster_coco_eval import COCO as FasterCOCO
    from faster_coco_eval import COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from ..evaluation.coco_data import index, silent
    from ..evaluation.coco_eval import evaluate
    shape = 'bbox' if kind == 'bbox' else 'segmentation'
    results = [{key: one[key] for key in ('image_id', 'category_id', 'score', shape)} for one in detections]
    metrics = {}

    def candidate(name: str, coco, evaluation: Callable) -> Callable:
        index(coco, copy.deepcopy(content))

        def measured():
            with silent():  # the libraries write into the results, so each run gets dicts of its own
                metrics[name] = np.array(evaluation(coco, [dict(one) for one in results]))
        return measured

    def library(kind_of_evaluation: type) -> Callable:
        def evaluation(coco, results):
            evaluator = kind_of_evaluation(coco, coco.loadRes(results), kind)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
            return evaluator.stats[:12]
        return evaluation

    def ours(coco, results):
        return np.nan_to_num(list(evaluate(coco, results, kind).stats().values()), nan=-1)  # pycocotools' word for nan

    candidates = {
        'ours': candidate('ours', COCO(), ours),
        'faster-coco-eval alone': candidate('faster-coco-eval alone', FasterCOCO(), library(COCOeval_faster)),
        'pycocotools': candidate('pycocotools', COCO(), library(COCOeval))}
    times = interleaved_times(candidates, rounds, warmup=0)
    difference = {name: float(np.abs(values - metrics['pycocotools']).max()) for name, values in metrics.items()}
    return make_rows(NAMES[kind], times, difference)


def time_encoding(content: dict, detections: list[dict], rounds: int) -> list[dict]:
    """Rows of what a metric does with the masks of an image: the metrics' own ``process`` on the same bool tensors."""
    from mmdet.evaluation import CocoMetric
    from pycocotools import mask as coco_mask

    from ..evaluation.coco_metric import FastCocoMetric
    by_image = defaultdict(list)
    for one in detections:
        by_image[one['image_id']].append(one['segmentation'])
    samples = []
    for image in content['images'][:MAPS]:
        masks = [coco_mask.decode(mask) for mask in by_image[image['id']]]
        masks = torch.from_numpy(np.array(masks, bool).reshape(-1, image['height'], image['width']))
        found = dict(masks=masks, bboxes=torch.zeros(len(masks), 4), scores=torch.zeros(len(masks)),
                     labels=torch.zeros(len(masks), dtype=torch.long))
        samples.append(dict(img_id=image['id'], ori_shape=masks.shape[1:], instances=[], pred_instances=found))
    metrics = {'ours': FastCocoMetric(metric='segm'), 'mmdet': CocoMetric(metric='segm')}
    encoded = {}

    def process(name: str, metric: CocoMetric) -> None:
        metric.dataset_meta = dict(classes=('any',))
        metric.results.clear()
        metric.process({}, samples)
        encoded[name] = [result['masks'] for _, result in metric.results]

    times = interleaved_times({name: partial(process, name, metric) for name, metric in metrics.items()}, rounds)
    different = sum(one != other for images in zip(*encoded.values(), strict=True)
                    for one, other in zip(*images, strict=True))
    times = {name: [value / len(samples) for value in values] for name, values in times.items()}
    return make_rows('masks of an image', times, {'ours': different, 'mmdet': 0.0})


def time_miou(rounds: int) -> list[dict]:
    """Rows of the accumulation of mIoU: the metrics' own ``process`` on the same label maps."""
    from mmseg.evaluation import IoUMetric

    from ..evaluation.iou_metric import FastIoUMetric, areas, confusion_matrix
    pairs = [label_maps(seed) for seed in range(MAPS)]
    samples = [dict(gt_sem_seg=dict(data=label), pred_sem_seg=dict(data=prediction)) for label, prediction in pairs]
    metrics = {'ours': FastIoUMetric(), 'mmseg': IoUMetric()}
    for metric in metrics.values():
        metric.dataset_meta = dict(classes=list(map(str, range(CLASSES))))
    candidates = {name: partial(metric.process, {}, samples) for name, metric in metrics.items()}
    times = interleaved_times(candidates, max(rounds, 9))
    difference = max(float((one - other).abs().max()) for label, prediction in pairs for one, other in zip(
        areas(confusion_matrix(label, prediction, CLASSES)),
        IoUMetric.intersect_and_union(prediction, label, CLASSES, 255), strict=True))
    return make_rows('mIoU', {name: [value / MAPS for value in values] for name, values in times.items()},
                     {'ours': difference, 'mmseg': 0.0})


def label_maps(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels in blocks of 32 pixels, 5% ignored, and a prediction that is right on 80%: int64, as mmseg has them."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(CLASSES, (SIZE // 32, SIZE // 32), generator=generator)
    label = label.repeat_interleave(32, 0).repeat_interleave(32, 1)
    noise = torch.randint(CLASSES, label.shape, generator=generator)
    prediction = torch.where(torch.rand(label.shape, generator=generator) < 0.8, label, noise)
    return label.masked_fill(torch.rand(label.shape, generator=generator) < 0.05, 255), prediction


def make_rows(what: str, times: dict[str, list[float]], difference: dict[str, float]) -> list[dict]:
    """One row per candidate: medians, and their ratios to ours."""
    medians = {name: median(values) for name, values in times.items()}
    return [dict(what=what, name=name, median_s=value, min_s=min(times[name]), of_ours=value / medians['ours'],
                 difference=difference[name]) for name, value in medians.items()]


def format_table(result: dict) -> str:
    """The rows as a Markdown table."""
    setting = result['setting']
    lines = [f'AP: {setting["images"]} images, {setting["objects"]} objects, {setting["detections"]} detections; '
             f'ground truth {setting["ground_truth"]}',
             f'masks of an image: up to {setting["per_image"]}, from bool tensors to run lengths; difference: masks',
             f'mIoU: {setting["label_maps"]}, {setting["classes"]} classes, time of one image', '',
             '| metric | by | median s | min s | / ours | largest difference to the reference |',
             '| --- | --- | ---: | ---: | ---: | ---: |']
    return '\n'.join(lines + [f'| {row["what"]} | {row["name"]} | {row["median_s"]:.4g} | {row["min_s"]:.4g} | '
                              f'{row["of_ours"]:.1f} | {row["difference"]:.1e} |' for row in result['rows']])
