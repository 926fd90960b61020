"""Evaluation of a detector, image by image, beside the stock stack: where the time goes besides the network."""
import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, METRICS, DefaultScope
from torch import nn

from ..config import load_config
from ..errors import UserError
from ..evaluation.coco_data import load_ground_truth, silent
from ..inference.predictor import Predictor
from ..mm.device import use_device
from .backbone import describe_machine
from .compare import build_pair
from .detections import enlarge
from .model import keep_all_detections
from .stock import stock_config, to_stock
from .stopwatch import Methods, Stopwatch
from .timing import CLOCKS

PARTS = {'reading': 'images through the test pipeline', 'network': 'with NMS', 'mask paste': 'masks at image size',
         'results': "the metric's process: masks to run lengths; ours matches them with the ground truth here",
         'metric': 'AP of boxes and masks from all results'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('config', help='a config of a detector on COCO: a file, or one of the package (det/...)')
    parser.add_argument('--checkpoint', help='trained weights (default: random ones, 100 detections an image)')
    parser.add_argument('--data-root', help="COCO, whose validation images are used (default: the config's)")
    parser.add_argument('--images', type=int, default=1000, help='the images are repeated up to this number')
    parser.add_argument('--block', type=int, default=20, help='images until the other side takes its turn')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--clock', choices=tuple(CLOCKS), default='wall',
                        help='cpu counts the processor time of this process alone, for a busy machine')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure; returns the measurements and the table to print.

    Raises:
        UserError: a count below 1, or a config without a COCO evaluator.
    """
    if min(args.images, args.block) < 1:
        raise UserError('benchmark loop: --images and --block must be at least 1')
    use_device(args.device)
    cfg = load_config(args.config, args.cfg_options, args.data_root)
    evaluator = cfg.get('test_evaluator')
    if not isinstance(evaluator, dict) or 'CocoMetric' not in evaluator.get('type', ''):
        raise UserError(f'{args.config}: benchmark loop needs a detector that is evaluated by FastCocoMetric or '
                        'CocoMetric (test_evaluator)')
    if not args.checkpoint:
        keep_all_detections(cfg)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'annotations.json')
        file.write_text(json.dumps(enlarge(load_ground_truth(evaluator.ann_file).dataset, args.images)))
        evaluator.ann_file = cfg.test_dataloader.dataset.ann_file = str(file)
        pair = build_pair(cfg, args.checkpoint, args.device)
        pair['ours'].optimize()
        with DefaultScope.overwrite_default_scope(cfg.default_scope), silent():
            loops = {side: Loop(stock_evaluation(cfg) if side == 'stock' else cfg, predictor, args.clock)
                     for side, predictor in pair.items()}
            result = measure(loops, args)
    result |= dict(config=args.config, weights=args.checkpoint or 'random', images=args.images, block=args.block,
                   clock=args.clock, machine=describe_machine(args.device))
    return result, format_table(result)


def stock_evaluation(cfg: Config) -> Config:
    """`stock_config` with mmdet's own data set and metric too."""
    cfg = stock_config(cfg)
    for value, registry in ((cfg.test_dataloader.dataset, DATASETS), (cfg.test_evaluator, METRICS)):
        with registry.switch_scope_and_registry(cfg.default_scope) as scoped:
            to_stock(value, scoped)
    return cfg


class Loop:
    """One side: what mmengine's TestLoop does with an image, without its hooks."""

    def __init__(self, cfg: Config, predictor: Predictor, clock: str):
        classes = dict(metainfo=dict(classes=predictor.classes))  # which mmdet's class does not know otherwise
        self.dataset = DATASETS.build({**deepcopy(cfg.test_dataloader.dataset), **classes})
        self.evaluator = Evaluator([deepcopy(cfg.test_evaluator)])
        self.evaluator.dataset_meta = self.dataset.metainfo
        self.model = predictor.model
        self.clock = clock
        self.seconds: Counter[str] = Counter()

    def methods(self) -> Methods:
        """The parts; a mask head's are the RoI head's own or those of every stage."""
        heads = getattr(getattr(self.model, 'roi_head', None), 'mask_head', None)
        return [('reading', self.dataset, '__getitem__'), ('network', self.model, 'test_step'),
                *(('mask paste', head, 'predict_by_feat')
                  for head in (heads if isinstance(heads, nn.ModuleList) else [heads])),
                ('results', self.evaluator, 'process'), ('metric', self.evaluator, 'evaluate')]

    def timed(self, function: Callable):
        """Call a function and add the seconds of the parts that it calls."""
        with Stopwatch(self.methods(), self.clock) as watch:
            result = function()
        self.seconds.update(watch.seconds)
        return result

    def images(self, start: int, stop: int) -> None:
        """Evaluate some images."""
        for index in range(start, stop):
            self.image(index)

    @torch.no_grad()
    def image(self, index: int) -> None:
        """Evaluate one image."""
        batch = pseudo_collate([self.dataset.__getitem__(index)])  # of the instance, where the clock is
        self.evaluator.process(data_samples=self.model.test_step(batch), data_batch=batch)


def measure(loops: dict[str, Loop], args: argparse.Namespace) -> dict:
    """Seconds of all images by part, ratios of the blocks, and the metrics of both sides."""
    for loop in loops.values():
        loop.image(0)  # warms up
        loop.evaluator.metrics[0].results.clear()
    blocks, metrics = {side: [] for side in loops}, {}
    for start in range(0, args.images, args.block):
        for side, loop in loops.items():
            before = loop.seconds.total()
            loop.timed(lambda loop=loop, start=start: loop.images(start, min(start + args.block, args.images)))
            blocks[side].append(loop.seconds.total() - before)
    for side, loop in loops.items():
        found = loop.timed(lambda loop=loop: loop.evaluator.evaluate(args.images))
        metrics[side] = {name: float(value) for name, value in found.items() if name.endswith('mAP')}
    return dict(metrics=metrics, seconds={side: dict(loop.seconds) for side, loop in loops.items()},
                ratios=[stock / ours for stock, ours in zip(*blocks.values(), strict=True)])


def format_table(result: dict) -> str:
    """The measurements as text with one Markdown table."""
    stock, ours = (result['seconds'][side] for side in ('stock', 'ours'))
    rows = [(part, stock.get(part, 0.0), ours.get(part, 0.0)) for part in PARTS]
    rows.append(('all but the network', *(sum(row[side] for row in rows if row[0] != 'network') for side in (1, 2))))
    rows.append(('whole', *(sum(seconds.values()) for seconds in (stock, ours))))
    lines = [f"{Path(result['config']).stem}, {result['weights']} weights, {result['machine']}",
             f"{result['images']} images one by one, blocks of {result['block']} in turn, {result['clock']} clock", '',
             '| part | stock s | ours s | stock / ours |', '| --- | ---: | ---: | ---: |']
    lines += [f"| {name} | {one:.2f} | {other:.2f} | {one / other if other else float('nan'):.2f} |"
              for name, one, other in rows]
    lines += ['', *(f'{part}: {meaning}' for part, meaning in PARTS.items()),
              f"ratios of the blocks, without the metric: {min(result['ratios']):.2f} to {max(result['ratios']):.2f}, "
              f"median {median(result['ratios']):.2f}"]
    lines += [f'{side}: ' + ', '.join(f'{name} {value:.3f}' for name, value in found.items())
              for side, found in result['metrics'].items()]
    return '\n'.join(lines)
