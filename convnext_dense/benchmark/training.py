"""A training step, ours beside the stock stack: its time by part, what it launches, where it waits."""
import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..config import load_config
from ..engine.compiled_losses import compile_losses
from ..engine.runner import AMP, set_amp
from ..errors import UserError
from ..mm.device import use_device
from ..optim.amp import for_this_machine
from ..recipes.model_info import published_input
from ..utils.quiet import quiet
from .backbone import SIDE, describe_machine, matrix_products, peak_memory
from .compare import spread_scores
from .made_batches import made_samples, with_plain_masks
from .narrow import narrow, operators_of_a_gpu
from .step_counts import OperatorCounts, SavedBytes, least_bytes
from .stock import stock_config
from .stopwatch import PARTS, Stopwatch, training_methods
from .timing import CLOCKS, exact_float32, interleaved_medians, time_once

# how far losses of the first step may differ, and norms of its gradients: float32, and mixed precision
LOSS, NORM = (1e-4, 0.02), (1e-2, 0.2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('config', help='a config file, or one of the package (det/... or seg/...)')
    parser.add_argument('--compare', action='store_true',
                        help="against the stock stack (mmdet's and mmseg's own classes, the official backbone code) "
                             'with the same weights and batches, interleaved; losses and gradients are compared')
    parser.add_argument('--batches', type=int, nargs='+', default=[2], metavar='IMAGES',
                        help='batch sizes (default: %(default)s)')
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                        help="of made images (default: 64 64 on a CPU, where host time is what can be measured; the "
                             "published FLOPs' input on a GPU)")
    parser.add_argument('--data-root', metavar='FOLDER', help="take the first images of the config's training data "
                        'there, through its pipeline, instead of made ones')
    parser.add_argument('--host', action='store_true',
                        help='measure on the CPU what a step costs the host of a GPU: little arithmetic (layers of 8 '
                             'channels, 8 classes, 32 RoIs), and the operators that the step starts on a GPU')
    parser.add_argument('--compile', nargs='?', const='default', metavar='MODE',
                        help='compile our step as CompileHook does, in a mode of torch.compile (reduce-overhead: CUDA '
                             'graphs); operators and waits are those before')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--amp', choices=('off', *AMP), help='mixed precision (default: as the config says)')
    parser.add_argument('--rounds', type=int, default=5, help='interleaved steps; the median counts '
                                                              '(default: %(default)s)')
    parser.add_argument('--clock', choices=tuple(CLOCKS), default='wall',
                        help='cpu counts the processor time of this process alone, for a busy machine')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    parser.add_argument('--no-memory', dest='memory', action='store_false', help='leave peak memory out')


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure; returns the measurements and the tables to print.

    Raises:
        UserError: a device that is not there, or a wrong number.
    """
    if min(*args.batches, args.rounds, *(args.size or (1,))) < 1:
        raise UserError('benchmark train: --batches, --rounds and --size must be at least 1')
    use_device(args.device)
    cfg = load_config(args.config, args.cfg_options, args.data_root)
    if args.amp:
        set_amp(cfg, args.amp)
    if args.host:
        if args.device != 'cpu' or args.data_root:
            raise UserError('benchmark train: --host measures made images on a CPU; leave --device and --data-root out')
        narrow(cfg)
    size = args.size or ((64, 64) if args.device == 'cpu' else published_input(cfg)[::-1])
    if not args.data_root and 'size' in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.size = tuple(size)  # segmentors pad to that
    trainers = build_trainers(cfg, args.device, args.compare)
    rows = []
    for images in args.batches:
        samples = real_samples(cfg, images) if args.data_root else made_samples(trainers['ours'].model, images, size)
        try:
            with operators_of_a_gpu(trainers) if args.host else nullcontext():
                rows.append(measure(trainers, samples, args))
        except torch.cuda.OutOfMemoryError:
            rows.append(dict(images=images, out_of_memory=True))
            torch.cuda.empty_cache()
    result = dict(config=args.config, host=args.host, machine=describe_machine(args.device), rounds=args.rounds,
                  clock=args.clock, size=None if args.data_root else list(size),
                  precision=trainers['ours'].precision(), batches=rows)
    return result, format_training(result)


class Trainer:
    """One side: a model with its optimizer."""

    def __init__(self, cfg: Config, optim_wrapper: dict, device: str):
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            self.model = MODELS.build(cfg.model)
            self.model.to(device).train()
            self.optim_wrapper: OptimWrapper = build_optim_wrapper(self.model, optim_wrapper)

    def step(self, batch: dict) -> dict:
        """One training step as mmengine's loops do it, from a collated batch on the CPU."""
        torch.compiler.cudagraph_mark_step_begin()
        return self.model.train_step(batch, optim_wrapper=self.optim_wrapper)

    def losses(self, batch: dict) -> torch.Tensor:
        """The sum of losses, in the precision of training; the samplers of RoIs draw the same each time."""
        torch.manual_seed(0)
        with self.optim_wrapper.optim_context(self.model):
            data = self.model.data_preprocessor(batch, training=True)
            return self.model.parse_losses(self.model(**data, mode='loss'))[0]

    def precision(self) -> str:
        """The type that autocast computes in, by name."""
        return str(getattr(self.optim_wrapper, 'cast_dtype', None) or torch.float32).removeprefix('torch.')


def build_trainers(cfg: Config, device: str, compare: bool) -> dict[str, Trainer]:
    """'ours' and, to compare, 'stock' before it: the same random weights, dropout and drop path off."""
    cfg = deepcopy(cfg)
    without_randomness(cfg.model)
    torch.manual_seed(0)
    with quiet():
        ours = Trainer(cfg, for_this_machine(cfg.optim_wrapper), device)
        ours.model.init_weights()
    spread_scores(ours.model)
    spread_biases(ours.model)
    if not compare:
        return dict(ours=ours)
    cfg = stock_config(cfg)
    with quiet():
        stock = Trainer(cfg, cfg.optim_wrapper if device == 'cuda' else for_this_machine(cfg.optim_wrapper), device)
    stock.model.load_state_dict(ours.model.state_dict())
    return dict(stock=stock, ours=ours)


def without_randomness(model: dict) -> None:
    """Switch dropout and drop path off, so that training steps of the two can be compared, and load no weights."""
    model.pop('init_cfg', None)
    model.backbone.pop('init_cfg', None)
    model.backbone.drop_path_rate = 0.0
    for name in ('decode_head', 'auxiliary_head'):
        if isinstance(model.get(name), dict):
            model[name].dropout_ratio = 0.0


@torch.no_grad()
def spread_biases(model: nn.Module) -> None:
    """Give the backbone's biases values: with zeros, LayerNorm's gradient is huge where an image is padded."""
    for name, parameter in model.backbone.named_parameters():
        if name.endswith('.bias'):
            parameter.normal_(std=0.02)


def real_samples(cfg: Config, images: int) -> list[dict]:
    """The first samples of a config's training data, as its pipeline gives them."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if len(dataset) < images:
        raise UserError(f'benchmark train: --batches {images} asks for more images than the {len(dataset)} of the '
                        'training data')
    return [dataset[index] for index in range(images)]


def measure(trainers: dict[str, Trainer], samples: list[dict], args: argparse.Namespace) -> dict:
    """Everything about one batch size."""
    batches = {side: pseudo_collate(with_plain_masks(samples) if side == 'stock' else samples) for side in trainers}
    found = dict(images=len(samples), sides={side: {} for side in trainers})
    check_steps(trainers, batches, found)
    for side, trainer in trainers.items():
        found['sides'][side] |= count_step(trainer, batches[side])  # warms up, too
    seconds, parts = ({side: [] for side in trainers} for _ in range(2))
    if args.compile:
        found['compiling_s'] = compile_step(trainers['ours'], batches['ours'], args.compile)
    for _ in range(args.rounds):
        for side, trainer in trainers.items():
            batch = deepcopy(batches[side])
            with Stopwatch(training_methods(trainer.model, trainer.optim_wrapper, args.compile and side == 'ours'),
                           args.clock) as watch:
                watch.call('other', lambda t=trainer, b=batch: t.step(b))
            parts[side].append(dict(watch.seconds))
            if args.device == 'cpu':  # where the stopwatch waits for nothing, its parts are the whole
                seconds[side].append(sum(watch.seconds.values()))
                continue
            batch = deepcopy(batches[side])
            seconds[side].append(time_once(lambda t=trainer, b=batch: t.step(b), args.clock))
    for side, trainer in trainers.items():
        whole = median(seconds[side])
        found['sides'][side] |= dict(
            step_ms=1e3 * whole, images_per_second=len(samples) / whole,
            parts_ms={part: 1e3 * median(times.get(part, 0.0) for times in parts[side]) for part in PARTS
                      if any(part in times for times in parts[side])})
        if args.memory:
            batch = deepcopy(batches[side])
            found['sides'][side]['peak_memory_mb'] = peak_memory(
                lambda t=trainer, b=batch: t.step(b), args.device) / 1e6
    if 'stock' in trainers:
        found['ratios'] = [stock / ours for stock, ours in zip(seconds['stock'], seconds['ours'], strict=True)]
    if args.device == 'cuda':
        found['floor'] = floor(trainers['ours'], batches['ours'])
    return found


def compile_step(trainer: Trainer, batch: dict, mode: str) -> float:
    """Compile a model's step, compare its loss with that before, and warm it up; returns the seconds that took."""
    start = time.perf_counter()
    with exact_float32():
        take_first_samples(trainer.model)
        state = deepcopy(trainer.model.state_dict())  # statistics of batch norm move
        values = dict(stock=trainer.losses(deepcopy(batch)).item())
        compiled = 'loss' in vars(trainer.model)  # for a batch size before
        if not compiled and not compile_losses(trainer.model, mode=None if mode == 'default' else mode):
            raise UserError('benchmark train: --compile compiles whole steps of fixed shapes: segmentors, and '
                            'detectors with StaticRPNHead and StaticRoIHead or StaticCascadeRoIHead')
        trainer.model.load_state_dict(state)
        values['ours'] = trainer.losses(deepcopy(batch)).item()
        take_first_samples(trainer.model, False)
    check_close('loss of the compiled step', values, LOSS[trainer.precision() != 'float32'])
    for _ in range(3):
        trainer.step(deepcopy(batch))
    return time.perf_counter() - start


@exact_float32()
def check_steps(trainers: dict[str, Trainer], batches: dict[str, dict], found: dict) -> None:
    """Losses and norms of the gradients of both sides, before any step; ValueError where they differ."""
    values, norms = {}, {}
    for trainer in trainers.values():
        take_first_samples(trainer.model)
    for side, trainer in trainers.items():
        state = deepcopy(trainer.model.state_dict())  # statistics of batch norm move
        loss = trainer.losses(deepcopy(batches[side]))
        loss.backward()
        gradients = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
        values[side], norms[side] = loss.item(), torch.stack(gradients).norm().item()
        trainer.model.load_state_dict(state)
        trainer.model.zero_grad(set_to_none=True)
        found['sides'][side] |= dict(loss=values[side], gradient_norm=norms[side])
    for trainer in trainers.values():
        take_first_samples(trainer.model, False)
    if 'stock' in trainers:
        mixed = trainers['ours'].precision() != 'float32'
        check_close('loss', values, LOSS[mixed])
        check_close('norm of all gradients', norms, NORM[mixed])
        trainers['ours'].model.load_state_dict(trainers['stock'].model.state_dict())


def take_first_samples(model: torch.nn.Module, first: bool = True) -> None:
    """Have a detector's samplers take the first candidates, on which both sides agree, or draw again."""
    for head in (getattr(model, 'rpn_head', None), getattr(model, 'roi_head', None)):
        samplers = getattr(head, 'sampler', None) or getattr(head, 'bbox_sampler', None) or []
        for sampler in samplers if isinstance(samplers, list) else [samplers]:
            if first:
                sampler.random_choice = lambda gallery, number: gallery[:number]  # of mmdet
                sampler.random_keys = first_highest  # of ours
            else:
                vars(sampler).pop('random_choice', None), vars(sampler).pop('random_keys', None)


def first_highest(boxes: torch.Tensor) -> torch.Tensor:
    """(N, A) numbers from 1 down to 0 for boxes (N, A, 4)."""
    return torch.linspace(1, 0, boxes.shape[1], device=boxes.device).expand(boxes.shape[:2])


def check_close(what: str, values: dict[str, float], tolerance: float) -> None:
    """ValueError where 'stock' and 'ours' differ by more than ``tolerance``, relative."""
    if not abs(values['ours'] - values['stock']) <= tolerance * abs(values['stock']):
        raise ValueError(f"{what} differs: {values['stock']:g} of the stock stack, {values['ours']:g} of ours")


def count_step(trainer: Trainer, batch: dict) -> dict:
    """Operators and waits of forward, backward and optimizer, and on a GPU the kernels that are launched."""
    wrapper, counts = trainer.optim_wrapper, {}
    device = next(trainer.model.parameters()).device.type

    def counted(part: str, function: Callable):
        with OperatorCounts(device) as mode:
            result = function()
        counts[part] = dict(operators=mode.operators, waits=dict(mode.waits))
        return result

    trainer.step(deepcopy(batch))  # AdamW makes its state in the first step
    batch, other = deepcopy(batch), deepcopy(batch)
    loss = counted('forward', lambda: trainer.losses(batch))
    counted('backward', lambda: wrapper.backward(wrapper.scale_loss(loss)))
    counted('optimizer', lambda: (wrapper.step(), wrapper.zero_grad()))
    found = dict(counts=counts)
    if device == 'cpu':
        counts['optimizer']['waits'] = {}  # Adam's step counts, which torch keeps on the CPU for a GPU, too
    else:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            trainer.step(other)
            torch.cuda.synchronize()
        found['launches'] = sum(1 for event in profile.events()
                                if event.name.startswith(('cudaLaunchKernel', 'cuLaunchKernel')))
    return found


def floor(trainer: Trainer, batch: dict) -> dict:
    """Least time of a step: multiply-accumulates at the rate of a large matrix product plus bytes at that of a copy.

    Both rates are measured here, the product in the type that autocast computes in.
    """
    dtype = getattr(torch, trainer.precision())
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    with FlopCounterMode(display=False) as counter, SavedBytes(trainer.model.parameters()) as saved:
        trainer.losses(deepcopy(batch)).backward()
    trainer.optim_wrapper.zero_grad()
    source = torch.empty(2 ** 28, dtype=torch.uint8, device='cuda')
    target = torch.empty_like(source)
    seconds = interleaved_medians(dict(product=matrix_products('cuda', dtype)['torch'],
                                       copy=lambda: target.copy_(source)), rounds=9)
    rate, copied = SIDE ** 3 / seconds['product'], 2 * source.numel() / seconds['copy']
    macs, moved = counter.get_total_flops() / 2, least_bytes(saved.total, parameters)
    return dict(gmacs=macs / 1e9, gbytes=moved / 1e9, gmacs_per_s=rate / 1e9, gbytes_per_s=copied / 1e9,
                product_ms=1e3 * macs / rate, copy_ms=1e3 * moved / copied,
                ms=1e3 * (macs / rate + moved / copied))


def format_training(result: dict) -> str:
    """The measurements as Markdown tables."""
    size = ' of {}x{} pixels'.format(*result['size']) if result['size'] else ' of the training data'
    size += ', narrow layers, the operators of a GPU' if result['host'] else ''
    lines = [f"training step of {Path(result['config']).stem}, images{size}, {result['precision']}, "
             f"{result['machine']}", f"medians of {result['rounds']} interleaved steps, {result['clock']} clock"]
    for row in result['batches']:
        lines += ['', f"{row['images']} images a step", '']
        if row.get('out_of_memory'):
            lines.append('out of memory')
            continue
        lines += format_batch(row)
    return '\n'.join(lines)


def format_batch(row: dict) -> list[str]:
    """One batch size: a column for each side."""
    sides = row['sides']
    lines = ['| ' + ' | '.join(['', *sides]) + ' |', '| --- |' + ' ---: |' * len(sides)]

    def add(name: str, value: Callable, digits: int = 1) -> None:
        lines.append('| ' + ' | '.join([name, *(f'{value(side):.{digits}f}' for side in sides.values())]) + ' |')

    for part in next(iter(sides.values()))['parts_ms']:
        add(f'{part}, ms', lambda side, part=part: side['parts_ms'].get(part, 0.0))
    add('whole step, ms', lambda side: side['step_ms'])
    add('images per second', lambda side: side['images_per_second'], 2)
    for part in ('forward', 'backward', 'optimizer'):
        add(f'operators, {part}', lambda side, part=part: side['counts'][part]['operators'], 0)
    for key, name, digits in (('launches', 'kernels launched', 0), ('peak_memory_mb', 'peak memory, MB', 0)):
        if all(key in side for side in sides.values()):
            add(name, lambda side, key=key: side[key], digits)
    add('waits', lambda side: sum(sum(part['waits'].values()) for part in side['counts'].values()), 0)
    lines.append('')
    for name, side in sides.items():
        total = {}
        for part in side['counts'].values():
            for wait, count in part['waits'].items():
                total[wait] = total.get(wait, 0) + count
        listed = ', '.join(f'{wait} {count}' for wait, count in sorted(total.items(), key=lambda item: -item[1]))
        lines.append(f"{name}: waits: {listed or 'none'}; loss {side['loss']:.6g}, norm of all gradients "
                     f"{side['gradient_norm']:.6g}")
    if 'compiling_s' in row:
        lines.append(f"ours was compiled in {row['compiling_s']:.0f} s; its forward pass is 'other'")
    if 'ratios' in row:
        ratios = row['ratios']
        lines.append(f'stock / ours: median {median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}')
    if 'floor' in row:
        least = row['floor']
        lines.append(f"floor {least['ms']:.1f} ms: {least['gmacs']:.1f} G multiply-accumulates at "
                     f"{least['gmacs_per_s']:.0f} G/s ({least['product_ms']:.1f} ms) and {least['gbytes']:.2f} GB at "
                     f"{least['gbytes_per_s']:.0f} GB/s ({least['copy_ms']:.1f} ms); ours takes "
                     f"{sides['ours']['step_ms'] / least['ms']:.2f} times that")
    return lines
