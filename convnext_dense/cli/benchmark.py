"""Measure ours and its peers in one interleaved run; prints tables and writes json."""
import argparse
import json
from pathlib import Path

import torch

from ..benchmark import evaluation, model, pipeline, roi_rounding
from ..benchmark.backbone import GROUPS, BackboneSetting, benchmark_backbone, format_backbone
from ..benchmark.peers import PEERS, SIZES


def add_backbone(commands) -> None:
    parser = commands.add_parser('backbone', help='ConvNeXt against timm, transformers, torchvision and a naive one')
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
    parser.set_defaults(run=run_backbone)


def run_backbone(args: argparse.Namespace) -> tuple[dict, str]:
    result = benchmark_backbone(BackboneSetting(
        arch=args.arch, size=tuple(args.size), batch=args.batch, device=args.device, dtypes=tuple(args.dtypes),
        groups=tuple(args.groups), peers=None if args.peers is None else tuple(args.peers), rounds=args.rounds,
        memory=args.memory))
    return result, format_backbone(result)


def add_model(commands) -> None:
    parser = commands.add_parser('model', help=model.HELP)
    model.add_arguments(parser)
    parser.set_defaults(run=model.run)


def add_eval(commands) -> None:
    parser = commands.add_parser('eval', help=evaluation.HELP)
    evaluation.add_arguments(parser)
    parser.set_defaults(run=evaluation.run)


def add_pipeline(commands) -> None:
    parser = commands.add_parser('pipeline', help=pipeline.HELP)
    pipeline.add_arguments(parser)
    parser.set_defaults(run=pipeline.run)


def add_rois(commands) -> None:
    parser = commands.add_parser('rois', help=roi_rounding.HELP)
    roi_rounding.add_arguments(parser)
    parser.set_defaults(run=roi_rounding.run)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    for add in (add_backbone, add_model, add_eval, add_pipeline, add_rois):
        add(commands)
    for command in commands.choices.values():
        command.add_argument('--threads', type=int, help='CPU threads (default: what torch takes)')
        command.add_argument('--json', type=Path, metavar='FILE', help='write the result there')
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    result, text = args.run(args)
    print(text)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
