#!/usr/bin/env python
"""Evaluate a checkpoint: mAP for detection, mIoU for segmentation."""
import argparse

from convnext_dense import stack
from convnext_dense.cli import run_tool
from convnext_dense.config import load_config
from convnext_dense.results import draw_predictions, dump_predictions, write_metrics
from convnext_dense.runner import Runner, prepare_testing


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog='Many GPUs: tools/dist_test.sh CONFIG CHECKPOINT GPUS')
    parser.add_argument('config', help='a config file, or one of the package (det/... or seg/...)')
    parser.add_argument('checkpoint', help='trained weights: a file, a URL or a name of the zoo')
    parser.add_argument('--work-dir', help='folder for metrics.json and logs (default: work_dirs/<config name>)')
    parser.add_argument('--data-root', help='folder of the data, for the loader and the evaluator')
    parser.add_argument('--show-dir', help='draw predictions beside the ground truth into this folder')
    parser.add_argument('--out', metavar='FILE.pkl', help='write all predictions to this pickle file')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    stack.use_device(args.device)
    cfg = load_config(args.config, args.cfg_options, args.data_root, args.work_dir)
    cfg = prepare_testing(cfg, args.checkpoint, args.launcher)
    if args.out:
        dump_predictions(cfg, args.out)
    if args.show_dir:
        draw_predictions(cfg, args.show_dir)
    runner = Runner.from_cfg(cfg)
    write_metrics(runner, runner.test())


if __name__ == '__main__':
    run_tool(main)
