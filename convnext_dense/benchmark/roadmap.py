"""The table of roadmap steps: parameters, FLOPs, latency and the paper's accuracy."""
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..models import PAPER_TOP1, REGIMES, RoadmapNet
from .timing import interleaved_medians

CLASSES = 1000  # ImageNet-1K: the table of the paper is a classifier's


def roadmap_table(latency_size: int | None = None, rounds: int = 5, regime: str = 'resnet50') -> list[dict]:
    """One row per step: step, mparams and gflops (classifier included), paper_top1, and latency_ms if wanted.

    Args:
        latency_size: height and width in pixels of the one image that is timed; None times nothing.
        rounds: interleaved repetitions, of which the median counts.
        regime: a name of `REGIMES`.

    FLOPs are multiply-accumulates (in 10^9) of convolutions and linear layers at 224x224, as in the paper.
    """
    rows, steps = [], REGIMES[regime]
    for step in steps:
        with torch.device('meta'):
            net = RoadmapNet(step, output_norm=False, regime=regime).eval()
        classifier = 2 * net.dims[-1] * steps[step].one_norm + (net.dims[-1] + 1) * CLASSES
        params = sum(p.numel() for p in net.parameters()) + classifier
        rows.append(dict(step=step, mparams=params / 1e6, gflops=count_macs(net, 224) / 1e9
                         + net.dims[-1] * CLASSES / 1e9, paper_top1=PAPER_TOP1[regime][step]))
    if latency_size is not None:
        image = torch.randn(1, 3, latency_size, latency_size)
        nets = {step: RoadmapNet(step, regime=regime).eval() for step in steps}
        with torch.inference_mode():
            medians = interleaved_medians({step: lambda net=net: net(image) for step, net in nets.items()}, rounds)
        for row in rows:
            row['latency_ms'] = 1e3 * medians[row['step']]
    return rows


def count_macs(net: nn.Module, height: int, width: int | None = None) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image; ``net`` may be on meta."""
    device = next(net.parameters()).device
    image = torch.empty(1, net.in_channels, height, width or height, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(image)
    return counter.get_total_flops() // 2


def format_roadmap(rows: list[dict]) -> str:
    """Rows of `roadmap_table` as a Markdown table."""
    timed = 'latency_ms' in rows[0]
    head = ['step', 'params (M)', 'FLOPs (G)', *(['latency (ms)'] if timed else []), 'top-1 (%), from the paper']
    lines = ['| ' + ' | '.join(head) + ' |', '| --- ' + '| ---: ' * (len(head) - 1) + '|']
    for row in rows:
        cells = [row['step'], f"{row['mparams']:.2f}", f"{row['gflops']:.2f}",
                 *([f"{row['latency_ms']:.0f}"] if timed else []), f"{row['paper_top1']:.2f}"]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)
