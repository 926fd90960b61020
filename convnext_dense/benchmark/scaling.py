"""Training on 8 to 1024 GPUs: predicted from a step measured here, and checked against one and two processes here."""
import argparse
from dataclasses import asdict, replace

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope

from ..config import load_config
from ..engine.runner import AMP, set_amp
from ..errors import UserError
from ..mm.device import use_device
from ..recipes.model_info import published_input
from .backbone import describe_machine
from .made_batches import made_samples
from .scaling_model import Link, Network, Step, efficiency, networks, ring, step_seconds, synchronized
from .scaling_ranks import build_trainer, measure_alone, measure_loop, measure_two

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('config', help='a config file, or one of the package (det/... or seg/...)')
    parser.add_argument('--images', type=int, help="per process and step (default: the config's batch size)")
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                        help="of made images (default: 64 64 on a CPU, the published FLOPs' input on a GPU)")
    parser.add_argument('--data-root', metavar='FOLDER', help='measure data loading too, on the training data there')
    parser.add_argument('--workers', type=int, help="that load data, per process (default: the config's)")
    parser.add_argument('--step-ms', type=float, help='predict for GPUs on which a step takes this long, as `benchmark '
                                                      'train` says there (default: what it takes here)')
    parser.add_argument('--gpus-per-node', type=int, default=8, help='default: %(default)s')
    parser.add_argument('--link', type=float, nargs=2, metavar=('GB_INSIDE', 'GBIT_BETWEEN'),
                        help='another network: gigabytes per second and direction of a GPU inside its node, gigabits '
                             'per second between nodes, all ports of a node together')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu',
                        help='default: a GPU where there is one')
    parser.add_argument('--amp', choices=('off', *AMP), help='mixed precision (default: as the config says)')
    parser.add_argument('--rounds', type=int, default=7, help='measured steps (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure and predict; returns both and the tables to print.

    Raises:
        UserError: a device that is not there, or a wrong number.
    """
    numbers = (args.rounds, args.gpus_per_node, *(args.size or ()), *(args.link or ()),
               *(number for number in (args.images, args.step_ms) if number is not None))
    if min(numbers) <= 0 or (args.workers or 0) < 0:
        raise UserError('benchmark scaling: --images, --size, --step-ms, --rounds, --gpus-per-node and --link must be '
                        'more than 0')
    use_device(args.device)
    cfg = load_config(args.config, args.cfg_options, args.data_root)
    if args.amp:
        set_amp(cfg, args.amp)
    size = tuple(args.size or ((64, 64) if args.device == 'cpu' else published_input(cfg)[::-1]))
    if 'size' in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.size = size  # segmentors pad to that
    samples = (args.images or cfg.train_dataloader.batch_size, size)
    step, checks = measure(cfg, samples, args)
    planned = step if args.step_ms is None else step.lasting(args.step_ms / 1e3)
    chosen = networks(args.gpus_per_node)
    if args.link:
        inside, between = args.link
        chosen.append(Network(f'{inside:g} GB/s, {between:g} Gb/s', Link(inside * 1e9, 5e-6),
                              Link(between * 1e9 / 8, 10e-6), args.gpus_per_node))
    table = [dict(gpus=gpus, efficiency={network.name: efficiency(planned, gpus, network) for network in chosen},
                  images_per_second={network.name: gpus * step.images / step_seconds(planned, gpus, network)
                                     for network in chosen}) for gpus in GPUS]
    result = dict(config=args.config, machine=describe_machine(args.device), size=list(size), checks=checks,
                  step_ms=args.step_ms,
                  step=dict(before=step.before, backward=step.backward, after=step.after, images=step.images,
                            gradient_bytes=step.gradient_bytes,
                            loader_rate=step.loader_rate if args.data_root else None),
                  networks=[asdict(network) for network in chosen], predicted=table)
    return result, format_result(result)


def measure(cfg: Config, samples: tuple, args: argparse.Namespace) -> tuple[Step, list[dict]]:
    """The step of one process, and what the model predicts for one and two processes here beside what they take."""
    trainer = build_trainer(cfg, args.device)
    batch = pseudo_collate(made_samples(trainer.model, *samples))
    step, checks = measure_alone(trainer, batch, args.device, args.rounds), []
    if args.data_root:
        workers = cfg.train_dataloader.num_workers if args.workers is None else args.workers
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            dataset = DATASETS.build(cfg.train_dataloader.dataset)
        rate, loop = measure_loop(trainer, batch, dataset, workers, args.rounds)
        step = replace(step, loader_rate=rate * max(workers, 1))
        loading = step.images / step.loader_rate
        predicted = max(step.compute, loading) if workers else step.compute + loading
        checks.append(dict(what=f'one process, {workers} worker(s)', predicted=predicted, measured=loop))
    del trainer
    if args.device == 'cpu' or torch.cuda.device_count() > 1:
        checks += check_two(measure_two(cfg, samples, args.device, args.rounds))
    return step, checks


def check_two(two: dict) -> list[dict]:
    """What two processes took for a step, and for all-reduces, beside the model's figures."""
    def cost(size: float) -> float:
        return ring(size, 2, two['link'])
    alone = dict(what='two processes, if communication were free', predicted=two['step'].compute,
                 measured=two['synchronized'])
    checks = [dict(what='two processes', predicted=synchronized(two['step'], cost), measured=two['synchronized']),
              alone]
    return checks + [dict(what=f'all-reduce of {size / 2**20:g} MiB, two processes', predicted=cost(size),
                          measured=seconds) for size, seconds in two['all_reduce']]


def format_result(result: dict) -> str:
    """The tables as Markdown."""
    step, names = result['step'], [network['name'] for network in result['networks']]
    rate = step['loader_rate']
    loading = 'not measured (--data-root)' if rate is None else \
        f'{rate:.1f} images/s, {1e3 * step["images"] / rate:.1f} ms a step'
    device = result['machine'].get('gpu') or f'CPU, {result["machine"]["threads"]} thread(s)'
    lines = [f'{result["config"]}, {step["images"]} image(s) of {result["size"][0]} x {result["size"][1]} a process, '
             f'{device}',
             f'step {1e3 * (step["before"] + step["backward"] + step["after"]):.1f} ms: until backward '
             f'{1e3 * step["before"]:.1f}, backward {1e3 * step["backward"]:.1f}, after {1e3 * step["after"]:.1f}; '
             f'gradients {step["gradient_bytes"] / 2**20:.1f} MiB; data loading {loading}', '',
             '| on this machine | predicted ms | measured ms | error |', '| --- | ---: | ---: | ---: |']
    lines += [f'| {check["what"]} | {1e3 * check["predicted"]:.2f} | {1e3 * check["measured"]:.2f} | '
              f'{check["predicted"] / check["measured"] - 1:+.0%} |' for check in result['checks']]
    if not result['checks']:
        lines.append('| one GPU: two processes cannot be measured | | | |')
    taken = '' if result['step_ms'] is None else f', where a step takes {result["step_ms"]:g} ms'
    lines += ['', f"Predicted efficiency{taken}: images per second and GPU, as a share of one GPU's", '',
              f'| GPUs | {" | ".join(names)} |', f'| ---: |{" ---: |" * len(names)}']
    for row in result['predicted']:
        shares = [f'{row["efficiency"][name]:.1%}' for name in names]
        lines.append(f'| {row["gpus"]} | {" | ".join(shares)} |')
    return '\n'.join(lines)
