"""Measure ours and its peers in one interleaved run; prints tables and writes json."""
import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

import convnext_dense

from ..utils.files import atomic_write

# name -> (module of the package benchmark, what it measures); each module has add_arguments(parser) and
# run(args) -> (result for --json, table to print), and is imported when it is asked for
SUBJECTS = {
    'backbone': ('backbone', 'ConvNeXt against timm, transformers, torchvision and a naive one'),
    'model': ('model', 'latency and throughput of a whole model, split into data, backbone, neck, heads and '
                       'post-processing'),
    'train': ('training', 'a training step: time by part, operators, waits, memory, beside the stock stack'),
    'kernels': ('kernels', 'fused operators: compiled for GPUs without one, bytes moved, and on a GPU their time'),
    'eval': ('evaluation', 'our AP and mIoU beside pycocotools and mmseg on the same inputs'),
    'loop': ('loop', 'evaluation of a detector image by image, by part, beside the stock stack'),
    'pipeline': ('pipeline', "training pipelines beside mmdet's and mmseg's own transforms, on one core"),
    'rois': ('roi_rounding', "RoIs under mixed precision: levels and overlaps of COCO boxes, mmdet's extractor and "
                             'ours'),
    'scaling': ('scaling', 'training on 8 to 1024 GPUs, predicted from a step measured here'),
    'checkpoint': ('checkpoint', 'how long training waits for a checkpoint that is written beside it'),
    'annotations': ('annotations', "start-up time and memory of large COCO annotations, beside mmdet's data set"),
}


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    for name, (module, meaning) in SUBJECTS.items():
        command = commands.add_parser(name, help=meaning)
        if argv[:1] == [name]:
            convnext_dense.prepare()  # also for its --help
            subject = import_module(f'convnext_dense.benchmark.{module}')
            subject.add_arguments(command)
            command.set_defaults(run=subject.run)
        command.add_argument('--threads', type=int, help='CPU threads (default: what torch takes)')
        command.add_argument('--json', type=Path, metavar='FILE', help='write the result there')
    args = parser.parse_args(argv)
    import torch
    if args.threads:
        torch.set_num_threads(args.threads)
    result, text = args.run(args)
    print(text)
    if args.json:
        with atomic_write(args.json) as part:
            part.write_text(json.dumps(result, indent=1))
