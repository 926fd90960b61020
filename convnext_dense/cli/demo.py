"""Generate data, train and evaluate a detector and a segmentor on it, and write a report: minutes on a CPU."""
import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ..datasets.shapes import ShapesParams, generate_shapes
from ..errors import UserError
from ..mm import environment
from ..utils.files import atomic_write

DET_CONFIG = 'det/mask-rcnn_convnext-atto_fpn_1xb8-4e_shapes.py'
SEG_CONFIG = 'seg/upernet_convnext-atto_1xb8-700i_shapes-128x128.py'
DATA = ShapesParams(seed=0, train=800, val=100, size=128)
# --smoke: enough to run every line, not enough to learn anything
SMOKE_DATA = ShapesParams(seed=0, train=16, val=4, size=128)
SMOKE_OPTIONS = {DET_CONFIG: ['train_cfg.max_epochs=2', 'train_cfg.val_interval=1'],
                 SEG_CONFIG: ['train_cfg.max_iters=4', 'train_cfg.val_interval=2',
                              'default_hooks.checkpoint.interval=2', 'default_hooks.logger.interval=1']}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'),
                        help='folder for data, runs, summary.json and index.html (default: %(default)s)')
    parser.add_argument('--smoke', action='store_true', help='a few iterations only; the metrics then mean nothing')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    environment.require('mmdet', 'mmseg')
    from ..report import write_report
    start = time.time()
    data, det, seg = (args.work_dir / name for name in ('shapes', 'det', 'seg'))
    announce('shapes data')
    generate_shapes(data, SMOKE_DATA if args.smoke else DATA, overwrite=True)
    det_metrics = train_and_test('detection', DET_CONFIG, data / 'coco', det, args.smoke)
    seg_metrics = train_and_test('segmentation', SEG_CONFIG, data / 'ade', seg, args.smoke)
    announce('page')
    page = write_report([det, seg], args.work_dir / 'index.html')
    summary = {
        'det': {name: det_metrics[f'coco/{name}'] for name in ('bbox_mAP', 'segm_mAP')},
        'seg': {'mIoU': round(seg_metrics['mIoU'] / 100, 4)},  # mmseg reports percent
        'seconds': round(time.time() - start, 1),
    }
    with atomic_write(args.work_dir / 'summary.json') as part:
        part.write_text(json.dumps(summary, indent=2) + '\n')
    print(json.dumps(summary))
    print(f'open {page} in a browser')


def train_and_test(task: str, config: str, data_root: Path, work_dir: Path, smoke: bool) -> dict[str, float]:
    """Train and evaluate one config with the command-line tools, in processes of their own; returns the metrics."""
    from ..engine.work_dir import latest_good_checkpoint
    from ..evaluation.prediction_file import PREDICTIONS
    shutil.rmtree(work_dir, ignore_errors=True)  # an earlier demo's
    options = ['--cfg-options', *SMOKE_OPTIONS[config]] if smoke else []
    announce(f'{task}: training {config}')
    call('train', config, '--data-root', data_root, '--work-dir', work_dir, *options)
    checkpoint = latest_good_checkpoint(work_dir)
    if checkpoint is None:
        raise UserError(f'{work_dir} has no checkpoint after training {config}: see the log there')
    announce(f'{task}: evaluating {checkpoint}')
    call('test', config, checkpoint, '--data-root', data_root, '--work-dir', work_dir,
         '--out', work_dir / PREDICTIONS)
    return json.loads((work_dir / 'metrics.json').read_text())


def call(name: str, *args) -> None:
    """Run another command; its output is shown.

    Raises:
        UserError: the command failed.
    """
    command = [sys.executable, '-m', 'convnext_dense.cli', name, *map(str, args)]
    code = subprocess.run(command).returncode
    if code != 0:
        raise UserError(f'`{" ".join(command)}` ended with exit status {code}: its message is above')


def announce(step: str) -> None:
    print(f'\n=== demo: {step}', flush=True)
