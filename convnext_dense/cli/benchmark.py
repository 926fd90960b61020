"""Measure ours and its peers in one interleaved run; prints tables and writes json."""
import argparse
import json
from pathlib import Path

import torch

from ..benchmark import backbone, evaluation, model, pipeline, roi_rounding

# each module has HELP, add_arguments(parser) and run(args) -> (result for --json, table to print)
SUBJECTS = {'backbone': backbone, 'model': model, 'eval': evaluation, 'pipeline': pipeline, 'rois': roi_rounding}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    for name, subject in SUBJECTS.items():
        command = commands.add_parser(name, help=subject.HELP)
        subject.add_arguments(command)
        command.set_defaults(run=subject.run)
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
