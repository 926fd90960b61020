"""Print the steps from ResNet to ConvNeXt: parameters, FLOPs, latency here, and the paper's accuracy."""
import argparse
import json

REGIMES = ('resnet50', 'resnet200')  # as in models.roadmap, which needs torch


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--regime', choices=REGIMES, default='resnet50',
                        help='ResNet-50 to ConvNeXt-T, or ResNet-200 to ConvNeXt-B (default: %(default)s)')
    parser.add_argument('--latency', type=int, metavar='PIXELS', help='time one square image of this size on the CPU')
    parser.add_argument('--rounds', type=int, default=5, help='interleaved repetitions; the median counts (default: 5)')
    parser.add_argument('--threads', type=int, help='CPU threads (default: what torch takes)')
    parser.add_argument('--json', action='store_true', help='print json')
    args = parser.parse_args(argv)
    import torch

    from ..benchmark.roadmap import format_roadmap, roadmap_table
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = roadmap_table(args.latency, args.rounds, args.regime)
    print(json.dumps(rows) if args.json else format_roadmap(rows))
