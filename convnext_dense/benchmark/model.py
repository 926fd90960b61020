"""Latency of a whole detector or segmentor on image files, split into its parts."""
import argparse
import tempfile
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate

from ..config import load_config
from ..errors import UserError
from ..inference.inputs import find_inputs
from ..inference.predictor import Predictor
from ..mm.device import use_device
from ..recipes.model_info import published_input
from .backbone import describe_machine, peak_memory
from .stopwatch import PARTS, Stopwatch, prediction_methods
from .timing import CLOCKS, time_once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('config', help='a config file, or one of the package (det/... or seg/...)')
    parser.add_argument('--checkpoint', help='trained weights (default: random ones)')
    parser.add_argument('--images', metavar='FOLDER', help='image files to read (default: one that is made)')
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                        help="of the file that is made, in pixels (default: the published FLOPs' input)")
    parser.add_argument('--batch', type=int, default=1, help='images that go through the network together')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--rounds', type=int, default=9, help='repetitions; the median counts (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    parser.add_argument('--compare', action='store_true',
                        help="against the stock stack (mmdet's and mmseg's own classes, the official backbone code) "
                             'with the same weights, interleaved; results are checked to agree')
    parser.add_argument('--clock', choices=tuple(CLOCKS), default='wall',
                        help='with --compare and --exported: cpu counts the processor time of this process alone, for '
                             'a busy machine (with --threads 1)')
    parser.add_argument('--exported', nargs='+', default=[], metavar='FILE', help='exported models (docs/deploy.md) of '
                        'the same weights, interleaved with PyTorch eager, the stock stack and this package; '
                        'results are compared')
    parser.add_argument('--autocast', choices=('bfloat16', 'float16'), help='with --compare: mixed precision on both')
    parser.add_argument('--no-memory', dest='memory', action='store_false',
                        help='with --compare: leave peak memory out, which takes a call of each more')


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure; returns the measurements and the table to print.

    A round is one batch: its files are read and go through pipeline, preprocessing and network to results on the CPU.

    Raises:
        UserError: a device that is not there, a wrong number, or images of several sizes after the pipeline.
    """
    if min(args.batch, args.rounds, *(args.size or (1,))) < 1:
        raise UserError('benchmark model: --batch, --rounds and --size must be at least 1')
    if args.autocast and not args.compare:
        raise UserError('benchmark model: --autocast goes with --compare')
    if args.clock != 'wall' and not (args.compare or args.exported):
        raise UserError('benchmark model: --clock goes with --compare or --exported')
    if args.exported and (args.compare or not args.checkpoint):
        raise UserError('benchmark model: --exported goes with --checkpoint, the weights that were exported, and '
                        'without --compare')
    use_device(args.device)
    cfg = load_config(args.config, args.cfg_options)
    if not args.checkpoint:
        keep_all_detections(cfg)
    if args.compare or args.exported:
        from .compare import build_pair, compare, format_comparison  # needs mmdet and mmseg
        predictors = build_pair(cfg, args.checkpoint, args.device)
        predictor = predictors['ours']
    else:
        predictor = Predictor(cfg, args.checkpoint, args.device, score_thr=0)
    with tempfile.TemporaryDirectory() as folder:
        files = [source.path for source in find_inputs([args.images or make_image(cfg, args.size, folder)])]
        batch = [files[index % len(files)] for index in range(args.batch)]
        shapes = {tuple(predictor.load(file)['inputs'].shape) for file in batch}
        if len(shapes) > 1:
            raise UserError(f'benchmark model: {args.images} gives images of {len(shapes)} sizes, as '
                            f'{" and ".join(map(str, sorted(shapes)[:2]))}, which cannot be one batch: use --batch 1, '
                            'or images of one size')
        if args.exported:
            from .exported import measure_exported
            result = measure_exported(predictors, args.exported, batch, args)
        else:
            result = compare(predictors, batch, args) if args.compare else measure(predictor, batch, args)
    result |= dict(config=args.config, weights=args.checkpoint or 'random', machine=describe_machine(args.device),
                   batch=args.batch, network_input=shapes.pop(), rounds=args.rounds)
    if args.compare or args.exported:
        result |= dict(autocast=args.autocast, clock=args.clock)
    if args.compare:
        return result, format_comparison(result)
    if args.exported:
        from .exported import format_exported
        return result, format_exported(result)
    return result, format_result(result)


def keep_all_detections(cfg) -> None:
    """With random weights no score is high: keep as many detections as an image may have, the worst case."""
    rcnn = cfg.model.get('test_cfg', {}).get('rcnn')
    if rcnn is not None:
        rcnn.score_thr = 0.0


def make_image(cfg, size: list[int] | None, folder: str) -> str:
    """Write one JPEG of smooth noise and return its folder; ``size`` is (height, width)."""
    height, width = size or published_input(cfg)[::-1]
    noise = np.random.default_rng(0).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    cv2.imwrite(str(Path(folder, 'made.jpg')), cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))
    return folder


def measure(predictor: Predictor, batch: list[Path], args: argparse.Namespace) -> dict:
    """Median milliseconds of a batch, whole and by part, and the peak memory of the network."""
    def whole():
        predictor.predict([predictor.load(file) for file in batch])

    for _ in range(2):
        whole()
    latency = median(time_once(whole) for _ in range(args.rounds))
    with Stopwatch(prediction_methods(predictor)) as watch:
        rounds = []
        for _ in range(args.rounds):
            watch.seconds.clear()
            watch.call('other', whole)
            rounds.append(dict(watch.seconds))
    parts = {part: 1e3 * median(seconds.get(part, 0.0) for seconds in rounds) for part in PARTS
             if any(part in seconds for seconds in rounds)}
    data = pseudo_collate([predictor.load(file) for file in batch])

    @torch.no_grad()
    def network():
        return predictor.model.test_step(data)

    found = network()
    detections = [len(sample.pred_instances) for sample in found] if predictor.task == 'det' else None
    return dict(latency_ms=1e3 * latency, images_per_second=len(batch) / latency, parts_ms=parts,
                peak_memory_mb=peak_memory(network, args.device) / 1e6, detections=detections)


def format_result(result: dict) -> str:
    """The measurements as text with one Markdown table."""
    shape, total = result['network_input'], sum(result['parts_ms'].values())
    lines = [f"{Path(result['config']).stem}, {result['weights']} weights, {result['machine']}",
             f"network input {result['batch']}x{'x'.join(map(str, shape))}, medians of {result['rounds']} rounds after "
             'warm-up', '', '| part | ms | share |', '| --- | ---: | ---: |']
    lines += [f'| {part} | {value:.1f} | {value / total:.0%} |' for part, value in result['parts_ms'].items()]
    lines += ['', f"whole: {result['latency_ms']:.1f} ms per batch, {result['images_per_second']:.2f} images per "
              f"second, peak memory of the network {result['peak_memory_mb']:.0f} MB"]
    if result['detections']:
        lines.append(f"detections per image: {', '.join(map(str, result['detections']))}"
                     + (' (random weights: as many as may be kept)' if result['weights'] == 'random' else ''))
    return '\n'.join(lines)
