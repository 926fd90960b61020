"""Evaluate a checkpoint: mAP for detection, mIoU for segmentation."""
import argparse
from contextlib import nullcontext
from pathlib import Path

from ..errors import UserError
from ..utils.images import TILED_MAX_PIXELS, allow_pixels


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog='Many GPUs: tools/dist_test.sh CONFIG CHECKPOINT GPUS')
    parser.add_argument('config', help='a config file, or one of the package (det/... or seg/...)')
    parser.add_argument('checkpoint', help='trained weights: a file, a URL or a name of the zoo; or an exported '
                        'model (docs/deploy.md)')
    parser.add_argument('--work-dir', help='folder for metrics.json and logs (default: work_dirs/<config name>)')
    parser.add_argument('--data-root', help='folder of the data, for the loader and the evaluator')
    parser.add_argument('--show-dir', help='draw predictions beside the ground truth into this folder')
    parser.add_argument('--out', metavar='FILE', help='write all predictions to this file: arrays and JSON (.npz, what '
                        'the report reads; docs/evaluation.md), or a pickle of mmdet or mmengine (.pkl)')
    parser.add_argument('--report', action='store_true',
                        help='write report.html and predictions.npz into the work dir: metrics, errors by type, images '
                        '(docs/report.md)')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    add_protocols(parser)
    return parser.parse_args(argv)


def add_protocols(parser: argparse.ArgumentParser) -> None:
    """Flags that change how images are tested; without one, the config says it (docs/inference.md)."""
    group = parser.add_argument_group('test protocols (default: the config\'s)')
    seg = group.add_mutually_exclusive_group()
    seg.add_argument('--slide', nargs='*', type=int, metavar=('SIZE', 'STRIDE'),
                     help='segmentation: sliding windows, of the config or of this size and stride in pixels')
    seg.add_argument('--whole', action='store_true', help='segmentation: whole images')
    seg.add_argument('--ms-flip', action='store_true',
                     help='segmentation: the config\'s multi-scale + flip; ADE20K as published')
    group.add_argument('--tta', nargs='*', type=float, metavar='RATIO',
                       help='detection: these ratios of the test scale (default: 0.5 1 1.5), each plain and flipped, '
                            'boxes and masks merged')
    group.add_argument('--tile', type=int, metavar='PIXELS',
                       help='cut larger images into square tiles of this side, and evaluate what is found in the whole '
                            'image (docs/large_images.md)')
    group.add_argument('--overlap', type=float, default=0.2, help='of neighbouring tiles, as a part of their side, 0 '
                       'to 0.9 (default: %(default)s)')
    group.add_argument('--soft-nms', action='store_true', help='detection: soft-NMS, linear')


def apply_protocols(cfg, args: argparse.Namespace) -> None:
    """Change the config as the flags say, in place."""
    from ..inference import protocols
    if args.slide is not None:
        if len(args.slide) not in (0, 2):
            raise UserError(f'--slide {" ".join(map(str, args.slide))}: expected SIZE and STRIDE in pixels, or neither')
        protocols.use_slide(cfg, *args.slide)
    if args.whole:
        protocols.use_whole(cfg)
    if args.soft_nms:
        protocols.use_soft_nms(cfg)
    if args.ms_flip:
        protocols.use_ms_flip(cfg)
    if args.tta is not None:
        protocols.use_det_tta(cfg, args.tta or protocols.TTA_RATIOS)
    if args.tile is not None:
        protocols.use_tiles(cfg, args.tile, args.overlap)
        if args.out and not args.out.endswith('.npz'):
            raise UserError(f'--out {args.out}: with --tile, expected a name that ends in .npz')


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with nullcontext() if args.tile is None else allow_pixels(TILED_MAX_PIXELS):
        test(args)


def test(args: argparse.Namespace) -> None:
    import torch

    from ..config import load_config
    from ..engine.exported import open_exported
    from ..engine.ranks import current_watch
    from ..engine.results import draw_predictions, dump_predictions, write_metrics
    from ..engine.runner import DenseRunner, prepare_testing
    from ..evaluation.prediction_file import PREDICTIONS
    from ..mm.device import use_device
    from ..report import write_report
    from ..runtime.backends import is_exported
    use_device(args.device)
    cfg = load_config(args.config, args.cfg_options, args.data_root, args.work_dir)
    cfg = prepare_testing(cfg, args.checkpoint, args.launcher)
    apply_protocols(cfg, args)
    exported = None
    if is_exported(args.checkpoint):
        if args.slide is not None or args.whole or args.ms_flip or args.tta is not None or args.soft_nms:
            raise UserError(f'{args.checkpoint} is tested as it was exported: leave out the flags of test protocols '
                            'except --tile, or export the model with another test_cfg (--cfg-options)')
        exported = open_exported(cfg, args.checkpoint, args.device, args.tile, args.overlap)
    predictions = Path(cfg.work_dir, PREDICTIONS)
    for file in dict.fromkeys([args.out] * bool(args.out) + [str(predictions)] * args.report):
        dump_predictions(cfg, file)
    if args.show_dir:
        draw_predictions(cfg, args.show_dir)
    runner = DenseRunner.from_cfg(cfg)
    if exported is not None:
        runner.model = exported
    write_metrics(runner, runner.test())
    if args.report:
        if runner.distributed:  # one process writes the report: the others must not wait for it
            if current_watch() is not None:
                current_watch().close()
            torch.distributed.destroy_process_group()
        if runner.rank == 0:
            page = write_report([predictions.parent], predictions.with_name('report.html'), predictions=predictions)
            print(f'written: {page}')
