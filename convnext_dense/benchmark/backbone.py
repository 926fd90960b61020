"""Our ConvNeXt, its peers and the machine's matrix-product rate: same weights, same image."""
import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models import ConvNeXt, fold_for_inference
from .peers import PEERS, SIZES, build_peers
from .roadmap import count_macs
from .timing import exact_float32, interleaved_times

MATMUL = 'matrix product'
GROUPS = ('forward', 'forward compiled', 'forward+backward', 'forward+backward compiled')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--arch', choices=SIZES, default='tiny')
    parser.add_argument('--size', type=int, nargs=2, default=(512, 512), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--dtypes', nargs='+', choices=('float32', 'bfloat16', 'float16'),
                        default=['float32', 'bfloat16'])
    parser.add_argument('--groups', nargs='+', choices=GROUPS, default=list(GROUPS[:3]))
    parser.add_argument('--peers', nargs='*', choices=tuple(PEERS), help='(default: all that can be imported)')
    parser.add_argument('--rounds', type=int, default=9, help='interleaved repetitions; the median counts')
    parser.add_argument('--no-memory', dest='memory', action='store_false', help='leave peak memory out')


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """The result, and its table."""
    result = benchmark_backbone(BackboneSetting(
        arch=args.arch, size=tuple(args.size), batch=args.batch, device=args.device, dtypes=tuple(args.dtypes),
        groups=tuple(args.groups), peers=None if args.peers is None else tuple(args.peers), rounds=args.rounds,
        memory=args.memory))
    return result, format_backbone(result)


@dataclass
class BackboneSetting:
    """What is measured, and how.

    Attributes:
        arch: 'tiny' to 'large'.
        size: height and width of the image in pixels.
        batch: images.
        device: 'cpu' or 'cuda'.
        dtypes: of weights and image: 'float32' (without TF32), 'bfloat16', 'float16'.
        groups: of `GROUPS`.
        peers: names to run; None runs all that can be imported.
        rounds: interleaved repetitions, of which the median counts.
        memory: whether peak memory is measured too.
    """
    arch: str = 'tiny'
    size: tuple[int, int] = (512, 512)
    batch: int = 1
    device: str = 'cpu'
    dtypes: tuple[str, ...] = ('float32', 'bfloat16')
    groups: tuple[str, ...] = GROUPS[:3]
    peers: tuple[str, ...] | None = None
    rounds: int = 9
    memory: bool = True


def benchmark_backbone(setting: BackboneSetting) -> dict:
    """Run everything; a dict of ``machine``, ``setting`` and ``rows``, which json can write.

    A row has dtype, group, name, layout, median_ms, min_ms, peak_mb, of_fastest_peer (time over that of the
    fastest peer), of_floor and of_fastest_floor (time over the floor by torch's matrix product, and by the faster
    of torch's and oneDNN's) and error (largest relative difference to our eager feature maps). The floors have rows,
    too.

    Raises:
        UserError: an arch that the peers lack, or a device that is not there.
        ValueError: a peer computes something else, so a comparison would mean nothing.
    """
    if setting.arch not in SIZES:
        raise UserError(f'benchmark backbone: the peers have the sizes {", ".join(SIZES)}, not {setting.arch!r}')
    if setting.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('benchmark backbone: --device cuda needs a GPU, and torch sees none; use --device cpu')
    torch.manual_seed(0)
    ours = ConvNeXt(setting.arch, output_norm=False, layer_scale_init_value=0.5, channels_last=True).eval()
    nets = {'ours': ours, 'ours, folded': fold_for_inference(ours)}
    peers = build_peers(ours, setting.arch)
    wanted = peers if setting.peers is None else setting.peers
    nets |= {name: net for name, net in peers.items() if name in wanted}
    macs = setting.batch * count_macs(ours, *setting.size)
    rows = []
    for dtype in setting.dtypes:
        for group in setting.groups:
            rows += run_group(setting, nets, getattr(torch, dtype), group, macs)
    return dict(machine=describe_machine(setting.device), setting=vars(setting), gmacs=macs / 1e9, rows=rows)


@exact_float32()
def run_group(setting: BackboneSetting, nets: dict[str, nn.Module], dtype: torch.dtype, group: str,
              macs: int) -> list[dict]:
    """Rows of one dtype and group; every peer runs in both memory layouts."""
    torch.manual_seed(1)
    image = torch.randn(setting.batch, 3, *setting.size).to(setting.device, dtype)
    training, compiled = 'backward' in group, 'compiled' in group
    reference = None
    candidates: dict[tuple[str, str], Callable] = {}
    errors = {}
    for name, original in nets.items():
        if training and name == 'ours, folded':
            continue
        layouts = ('channels-last',) if name.startswith('ours') else ('channels-last', 'contiguous')
        for layout in layouts:
            memory_format = torch.channels_last if layout == 'channels-last' else torch.contiguous_format
            net = deepcopy(original).to(setting.device, dtype).to(memory_format=memory_format)
            x = image.contiguous(memory_format=memory_format)
            with torch.no_grad():
                maps = [m.float() for m in net(x)]
            reference = reference or maps
            errors[name, layout] = check_same(name, maps, reference, dtype)
            if compiled:
                net = torch.compile(net)
            candidates[name, layout] = train_step(net, x) if training else inference_step(net, x)
    candidates |= {(MATMUL, kind): step for kind, step in matrix_products(setting.device, dtype).items()}
    times = interleaved_times(candidates, setting.rounds)
    return make_rows(setting, dtype, group, macs * (3 if training else 1), times, candidates, errors)


def make_rows(setting: BackboneSetting, dtype: torch.dtype, group: str, macs: int, times: dict, candidates: dict,
              errors: dict) -> list[dict]:
    """Medians, floors and ratios; the floors come from the matrix products of these very rounds."""
    medians = {key: median(values) for key, values in times.items()}
    floors = {kind: macs / SIDE ** 3 * value for (name, kind), value in medians.items() if name == MATMUL}
    peer_times = [value for (name, _), value in medians.items() if name != MATMUL and not name.startswith('ours')]
    base = dict(dtype=str(dtype).removeprefix('torch.'), group=group)
    rows = [base | dict(name='floor', layout=kind, median_ms=1e3 * floor, gflops_per_s=2 * macs / floor / 1e9)
            for kind, floor in floors.items()]
    for (name, layout), value in medians.items():
        if name == MATMUL:
            continue
        row = dict(name=name, layout=layout, median_ms=1e3 * value, min_ms=1e3 * min(times[name, layout]),
                   of_floor=value / floors['torch'], of_fastest_floor=value / min(floors.values()),
                   error=errors[name, layout])
        if peer_times:
            row['of_fastest_peer'] = value / min(peer_times)
        if setting.memory:
            row['peak_mb'] = peak_memory(candidates[name, layout], setting.device) / 1e6
        rows.append(base | row)
    return rows


def inference_step(net: nn.Module, x: Tensor) -> Callable:
    @torch.inference_mode()
    def step():
        return net(x)
    return step


def train_step(net: nn.Module, x: Tensor) -> Callable:
    """Forward and backward with a gradient of ones; gradients of weights are cleared before."""
    def step():
        net.zero_grad(set_to_none=True)
        maps = net(x)
        torch.autograd.backward(maps, [torch.ones_like(m) for m in maps])
    return step


def check_same(name: str, maps: list[Tensor], reference: list[Tensor], dtype: torch.dtype) -> float:
    """Largest relative difference of the feature maps; ValueError where it is more than rounding."""
    error = max(((a - b).norm() / b.norm()).item() for a, b in zip(maps, reference, strict=True))
    if error > (1e-4 if dtype == torch.float32 else 0.1):
        raise ValueError(f'benchmark backbone: {name} differs from ours by {error:.1e} (relative); '
                         'the same weights should give the same feature maps')
    return error


SIDE = 2048  # of the square matrices: large enough for the full rate, small enough to stay quick


def matrix_products(device: str, dtype: torch.dtype) -> dict[str, Callable]:
    """The machine's own rate: one large product, as torch multiplies, and on the CPU by oneDNN too."""
    a, b = (torch.randn(SIDE, SIDE).to(device, dtype) for _ in range(2))
    steps = {'torch': torch.inference_mode()(lambda: a @ b)}
    if device == 'cpu' and torch.backends.mkldnn.is_available():
        product = torch.ops.mkldnn._linear_pointwise
        steps['oneDNN'] = torch.inference_mode()(lambda: product(a, b, None, 'none', [], ''))
    return steps


def peak_memory(step: Callable, device: str) -> int:
    """Bytes that one call allocates at its peak, on top of weights and image."""
    if device == 'cuda':
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    events = sorted((event for event in events if event.get('name') == '[memory]'), key=lambda event: event['ts'])
    held = peak = 0
    for event in events:
        held += event['args']['Bytes']
        peak = max(peak, held)
    return peak


CPU_FEATURES = ('avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'avx512_fp16', 'avx_vnni', 'amx_bf16', 'amx_int8')


def cpu_features() -> list[str]:
    """Instruction sets of this CPU that matrix products use, as Linux names them; empty where it cannot be asked."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return []
    flags = next((line.split(':')[1].split() for line in lines if line.startswith('flags')), ())
    return [name for name in CPU_FEATURES if name in flags]


def describe_machine(device: str) -> dict:
    """What measurements depend on: threads, CPU or GPU, package versions."""
    packages = {}
    for name in ('torch', 'torchvision', 'timm', 'transformers', 'mmdet', 'mmsegmentation'):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    info = dict(threads=torch.get_num_threads(), capability=torch.backends.cpu.get_cpu_capability(),
                cpu=cpu_features(),
                python=platform.python_version(), packages=packages)
    if device == 'cuda':
        info['gpu'] = torch.cuda.get_device_name()
    return info


def format_backbone(result: dict) -> str:
    """The rows as one Markdown table per dtype and group."""
    setting = result['setting']
    shape = 'x'.join(map(str, (setting['batch'], 3, *setting['size'])))
    lines = [f"{setting['arch']}, {shape}, {result['gmacs']:.1f} G multiply-accumulates, {result['machine']}"]
    last = None
    for row in result['rows']:
        if (row['dtype'], row['group']) != last:
            last = row['dtype'], row['group']
            lines += ['', f"{row['group']}, {row['dtype']}", '',
                      '| network | layout | median ms | min ms | / fastest peer | / floor | / best floor | peak MB |',
                      '| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |']
        cells = [row['name'], row['layout']]
        for key, digits in (('median_ms', 1), ('min_ms', 1), ('of_fastest_peer', 3), ('of_floor', 2),
                            ('of_fastest_floor', 2), ('peak_mb', 0)):
            cells.append(f'{row[key]:.{digits}f}' if key in row else '')
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)
