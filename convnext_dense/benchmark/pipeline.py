"""A recipe's training pipeline timed beside mmdet's or mmseg's own transforms, on one core."""
import argparse
from pathlib import Path
from statistics import median
from time import thread_time

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement

from ..config import load_config
from ..config.preflight import check_built_dataset, check_config
from ..datasets.transforms import stock_pipeline
from ..errors import UserError
from .backbone import describe_machine

RECIPES = ('det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py',
           'det/mask-rcnn_convnextv2-b-fcmae_fpn_8xb4-amp-lsj-3x_coco.py',
           'seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py')
MASK_PIXELS = 'pixels of the masks'  # a step of its own: ours are not made before they are read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('configs', nargs='*', default=RECIPES, metavar='CONFIG',
                        help="whose training pipelines (default: multi-scale crop, large-scale jitter and ADE20K's)")
    parser.add_argument('--data', type=Path, default=Path('data'), metavar='FOLDER',
                        help="what stands for the `data` that recipes' data roots begin with (default: %(default)s)")
    parser.add_argument('--samples', type=int, default=100,
                        help='of a round; a smaller data set is taken again and again (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=5, help='interleaved repetitions; the median counts')
    parser.add_argument('--seed', type=int, default=0, help='of the random choices, which no two samples share')


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure; returns the times and the table to print.

    Raises:
        UserError: a count below 1, more than one thread, data that is not there, or a sample on which the two
            pipelines differ.
    """
    for name in ('samples', 'rounds'):
        if getattr(args, name) < 1:
            raise UserError(f'benchmark pipeline: --{name} must be at least 1, not {getattr(args, name)}')
    if args.threads not in (None, 1):
        raise UserError(f'benchmark pipeline: --threads {args.threads} has no meaning here, because a pipeline is '
                        'measured in one thread, as in a worker: leave it out')
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        recipes = [compare(load(name, args.data), args) for name in args.configs]
        result = dict(machine=describe_machine('cpu'), rounds=args.rounds, seed=args.seed, recipes=recipes)
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    return result, format_result(result)


def load(name: str, data: Path) -> Config:
    """A config whose data root begins with ``data`` instead of the recipe's ``data/``."""
    cfg = load_config(name)
    root = Path(cfg.get('data_root') or '')
    if root.parts[:1] == ('data',):
        cfg = load_config(name, data_root=str(data.joinpath(*root.parts[1:])))
    check_config(cfg, ('train_dataloader',))
    return cfg


def compare(cfg: Config, args: argparse.Namespace) -> dict:
    """One recipe's row: milliseconds of a sample in both pipelines, whole and by step."""
    settings, name = cfg.train_dataloader.dataset, Path(cfg.filename).stem
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(dict(settings, pipeline=[]))
        check_built_dataset(dataset)
        pipelines = {'stock': Compose(stock_pipeline(settings.pipeline)), 'ours': Compose(settings.pipeline)}
        rounds = [time_round(pipelines, dataset, name, args.seed + number, args.samples)
                  for number in range(args.rounds + 1)][1:]  # the first warms up
    row = dict(config=name, images=len(dataset), samples=args.samples,
               ratios=[seconds['stock'].sum() / seconds['ours'].sum() for seconds in rounds])
    for which, pipeline in pipelines.items():
        milliseconds = 1e3 * np.stack([seconds[which] for seconds in rounds]) / args.samples
        steps = [*(type(step).__name__ for step in pipeline.transforms), MASK_PIXELS]
        row[f'{which}_ms'] = median(milliseconds.sum(1).tolist())
        row[f'{which}_steps'] = list(zip(steps, np.median(milliseconds, 0).tolist(), strict=True))
    return row


def time_round(pipelines: dict[str, Compose], dataset, name: str, seed: int, number: int) -> dict[str, np.ndarray]:
    """Seconds that each step of each pipeline takes for ``number`` samples; every pair of samples is compared."""
    seconds = {which: np.zeros(len(pipeline.transforms) + 1) for which, pipeline in pipelines.items()}
    for index in range(number):
        samples = {}
        for which in list(pipelines)[::-1 if index % 2 else 1]:  # in turn, so that drift hits both alike
            info = dataset.get_data_info(index % len(dataset))
            np.random.seed(seed * number + index)
            samples[which], times = timed(pipelines[which], info)
            seconds[which] += times
        check_same(samples['stock'], samples['ours'], f'{name}, image {index % len(dataset)}')
    return seconds


def timed(pipeline: Compose, info: dict) -> tuple[dict | None, np.ndarray]:
    """A sample, its masks made, and the seconds of each step, of this thread's own: other programs cost none."""
    seconds, sample = np.zeros(len(pipeline.transforms) + 1), info
    for position, step in enumerate([*pipeline.transforms, read_masks]):
        start = thread_time()
        sample = step(sample)
        seconds[position] = thread_time() - start
        if sample is None:  # filtered out
            break
    return sample, seconds


def read_masks(sample: dict) -> dict:
    """The sample, whose instance masks have been asked for their pixels."""
    for key in ('gt_instances', 'ignored_instances'):
        masks = sample['data_samples'].get(key, {}).get('masks')
        if masks is not None:
            masks.to_ndarray()
    return sample


def check_same(stock, ours, where: str) -> None:
    """Raise unless two packed samples hold the same values of the same types.

    Raises:
        UserError: names what differs.
    """
    def fail(what: str):
        raise UserError(f'benchmark pipeline: {where} differs in its {what}')

    if isinstance(stock, BaseDataElement):
        check_same(dict(stock.all_items()), dict(ours.all_items()), where)
    elif isinstance(stock, dict):
        if stock.keys() != ours.keys():
            fail(f'keys, {sorted(stock)} and {sorted(ours)}')
        for key in stock:
            check_same(stock[key], ours[key], f'{where}, {key}')
    elif hasattr(stock, 'to_ndarray'):  # masks
        check_same(stock.to_ndarray(), ours.to_ndarray(), where)
    elif hasattr(stock, 'shape'):  # arrays, tensors and boxes
        first, second = (np.asarray(getattr(value, 'tensor', value)) for value in (stock, ours))
        if first.dtype != second.dtype or not np.array_equal(first, second):
            fail('values')
    elif stock != ours:
        fail('values')


def format_result(result: dict) -> str:
    """The rows as Markdown tables."""
    lines = [f'{result["machine"]}', f'milliseconds of one core for a sample, medians of {result["rounds"]} rounds; '
             "every sample of ours equals the stock transforms'", '',
             '| recipe | images | samples a round | stock | ours | ratio | ratios of the rounds |',
             '| --- | ---: | ---: | ---: | ---: | ---: | --- |']
    for row in result['recipes']:
        lines.append(f'| {row["config"]} | {row["images"]} | {row["samples"]} | {row["stock_ms"]:.1f} | '
                     f'{row["ours_ms"]:.1f} | {median(row["ratios"]):.2f} | '
                     f'{min(row["ratios"]):.2f} to {max(row["ratios"]):.2f} |')
    for row in result['recipes']:
        lines += ['', f'{row["config"]}, by step', '', '| step | stock | ours |', '| --- | ---: | ---: |']
        lines += [f'| {step} | {before:.2f} | {after:.2f} |' for (step, before), (_, after) in zip(
            row['stock_steps'], row['ours_steps'], strict=True)]
    return '\n'.join(lines)
