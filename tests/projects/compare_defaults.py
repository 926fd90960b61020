"""Train converted data sets with the recipe's settings and with those that fit the data, for the same time each.

    python tests/projects/compare_defaults.py data/tiny data/people --seconds 100 --out compared

Prints the table of docs/your-own-data.md. Every run is on one CPU thread, from random weights, with the same seed. The
number of iterations is the given processor time over that of a measured step, and the schedule is shortened to it. A
data set for which both choices are the same is trained once.
"""
import argparse
import copy
import json
import time
from pathlib import Path

import torch

from convnext_dense.config import load_config
from convnext_dense.engine.runner import DenseRunner, prepare_training
from convnext_dense.mm.device import use_device
from convnext_dense.projects.anchors import ious_of
from convnext_dense.projects.choose import SHORT_SIDE, plan_project, write_project
from convnext_dense.projects.objects import read_objects
from convnext_dense.projects.plan import Plan

METRICS = {'coco/segm_mAP': 'mask AP', 'coco/segm_mAP_s': 'small', 'coco/bbox_mAP': 'box AP', 'mIoU': 'mIoU'}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', nargs='+', type=Path, help='folders that tools/convert_dataset.py wrote')
    parser.add_argument('--seconds', type=float, default=100, help='processor time of each training')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, required=True, help='folder for the projects, the runs and results.json')
    args = parser.parse_args()
    torch.set_num_threads(1)
    use_device('cpu')
    results = []
    for data in args.data:
        results += compare(data, args)
        args.out.joinpath('results.json').write_text(json.dumps(results, indent=1))
    print(table(results))


def compare(data: Path, args: argparse.Namespace) -> list[dict]:
    """The results of both choices for one data set."""
    fitted = plan_project(str(data), None, 'atto', 'random', device='cpu')
    short = min(fitted.short, SHORT_SIDE['cpu'][fitted.task])
    recipe = plan_project(str(data), None, 'atto', 'random', short, device='cpu', fit=False)
    rows = []
    for name, chosen in (('recipe', recipe), ('fitted', fitted)):
        if rows and (recipe.short, recipe.detector) == (fitted.short, fitted.detector):
            rows.append({**rows[0], 'defaults': 'the same'})
            continue
        if chosen.detector:
            print(f'{data.name}, {name}: {small_covered(data, chosen):.0%} of the objects under 32 pixels (in the '
                  'image) have an anchor with an IoU of 0.5', flush=True)
        folder = args.out / f'{data.name}-{name}'
        cfg = load_config(str(write_project(str(folder), chosen)))
        rows.append(dict(data=data.name, defaults=name, side=chosen.short,
                         anchors=chosen.detector and str(chosen.detector.anchors.scales),
                         proposals=chosen.detector and chosen.detector.proposals, **train(cfg, args)))
        print(rows[-1], flush=True)
    return rows


def small_covered(data: Path, chosen: Plan) -> float:
    """Share of the training objects that COCO calls small whose best anchor has an IoU of 0.5."""
    objects = read_objects(data / chosen.info.splits['train'].ann_file)
    ious = ious_of(objects.resized(chosen.scale), chosen.detector.anchors)
    return float((ious[objects.sides < 32] >= 0.5).mean())


def train(cfg, args: argparse.Namespace) -> dict:
    """Train for a time; returns iterations, seconds and metrics."""
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.randomness = dict(seed=args.seed)
    step = step_seconds(copy.deepcopy(cfg))
    iterations = max(10, round(args.seconds / step))
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=max(1, iterations // 10)),
        dict(type='CosineAnnealingLR', eta_min=0.0, T_max=iterations, begin=0, end=iterations, by_epoch=False)]
    cfg.default_hooks.checkpoint = dict(type='SafeCheckpointHook', by_epoch=False, interval=iterations)
    cfg.log_processor.by_epoch = False
    runner = build(cfg)
    begin = time.process_time()
    runner.train()
    metrics = {short: runner.message_hub.get_scalar(f'val/{name}').current() for name, short in METRICS.items()
               if f'val/{name}' in runner.message_hub.log_scalars}
    return dict(step=round(step, 2), iterations=iterations, seconds=round(time.process_time() - begin), metrics=metrics)


def step_seconds(cfg) -> float:
    """Processor time of a training step: the median of three, after two that do not count."""
    runner = build(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner._init_model_weights()
    runner.model.train()
    times = []
    for _, batch in zip(range(5), runner.train_loop.dataloader, strict=False):
        begin = time.process_time()
        runner.model.train_step(batch, runner.optim_wrapper)
        times.append(time.process_time() - begin)
    return sorted(times[2:])[1]


def build(cfg) -> DenseRunner:
    cfg.experiment_name = f'compare {time.time()}'
    return DenseRunner.from_cfg(prepare_training(cfg))


def table(results: list[dict]) -> str:
    """As Markdown."""
    lines = ['| data | defaults | input side | anchor scales | proposals | iterations | ' +
             'seconds | result |', '| --- | --- | --- | --- | --- | --- | --- | --- |']
    for row in results:
        metrics = ', '.join(f'{name} {value:.1f}' if name == 'mIoU' else f'{name} {100 * value:.1f}'
                            for name, value in row['metrics'].items() if value == value)
        lines.append(f'| {row["data"]} | {row["defaults"]} | {row["side"]} | {row["anchors"] or "-"} | '
                     f'{row["proposals"] or "-"} | {row["iterations"]} | {row["seconds"]} | {metrics} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
