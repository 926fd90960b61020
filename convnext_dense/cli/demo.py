"""The main job in minutes on a CPU: make data, train and evaluate a detector and a segmenter, show both on a page."""
import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ..datasets.shapes import ShapesParams, generate_shapes
from ..datasets.shapes_render import CLASSES, PALETTE, SEG_CLASSES, SEG_PALETTE
from ..engine.runner import latest_good_checkpoint
from ..errors import UserError
from ..mm import environment
from ..visualization.draw import draw_legend, side_by_side
from ..visualization.page import KeyFigures, Section, Table, encode_jpeg, render_page, write_text
from ..visualization.run_page import Run, Sample, detection_samples, run_section, segmentation_samples

DET_CONFIG = 'det/mask-rcnn_convnext-atto_fpn_1xb8-4e_shapes.py'
SEG_CONFIG = 'seg/upernet_convnext-atto_1xb8-700i_shapes-128x128.py'
DATA = ShapesParams(seed=0, train=800, val=100, size=128)
# --smoke: enough to run every line, not enough to learn anything
SMOKE_DATA = ShapesParams(seed=0, train=16, val=4, size=128)
SMOKE_OPTIONS = {DET_CONFIG: ['train_cfg.max_epochs=2', 'train_cfg.val_interval=1'],
                 SEG_CONFIG: ['train_cfg.max_iters=4', 'train_cfg.val_interval=2',
                              'default_hooks.checkpoint.interval=2', 'default_hooks.logger.interval=1']}
PICTURES = 6


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'),
                        help='folder for data, runs, summary.json and index.html (default: %(default)s)')
    parser.add_argument('--smoke', action='store_true', help='a few iterations only; the figures then mean nothing')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    environment.require('mmdet', 'mmseg')
    start = time.time()
    data = args.work_dir / 'shapes'
    announce('shapes data')
    generate_shapes(data, SMOKE_DATA if args.smoke else DATA, overwrite=True)
    det = train_and_test('Detection', DET_CONFIG, data / 'coco', args.work_dir / 'det', args.smoke,
                         ('coco/bbox_mAP', 'coco/segm_mAP'), 'COCO AP', (0, 1))
    seg = train_and_test('Segmentation', SEG_CONFIG, data / 'ade', args.work_dir / 'seg', args.smoke,
                         ('mIoU', 'mAcc', 'aAcc'), 'percent', (0, 100))
    summary = {
        'det': {'bbox_mAP': det.metric('coco/bbox_mAP'), 'segm_mAP': det.metric('coco/segm_mAP')},
        'seg': {'mIoU': round(seg.metric('mIoU') / 100, 4)},  # mmseg reports percent
        'seconds': round(time.time() - start, 1),
    }
    announce('page')
    write_text(args.work_dir / 'index.html', build_page(summary, det, seg, data, args.work_dir))
    write_text(args.work_dir / 'summary.json', json.dumps(summary, indent=2) + '\n')
    print(json.dumps(summary))
    print(f'open {args.work_dir / "index.html"} in a browser')


def train_and_test(title: str, config: str, data_root: Path, work_dir: Path, smoke: bool, *metric_plot) -> Run:
    """Train and evaluate one config with the tools that a user calls, in processes of their own."""
    start = time.time()
    shutil.rmtree(work_dir, ignore_errors=True)  # an earlier demo's
    predictions = work_dir / 'predictions.pkl'
    options = ['--cfg-options', *SMOKE_OPTIONS[config]] if smoke else []
    announce(f'{title.lower()}: training {config}')
    call('train', config, '--data-root', data_root, '--work-dir', work_dir, *options)
    checkpoint = latest_good_checkpoint(work_dir)
    if checkpoint is None:
        raise UserError(f'{work_dir} has no checkpoint after training {config}: see the log there')
    announce(f'{title.lower()}: evaluating {checkpoint}')
    call('test', config, checkpoint, '--data-root', data_root, '--work-dir', work_dir, '--out', predictions)
    return Run(title, config, work_dir, work_dir / 'metrics.json', predictions, time.time() - start, *metric_plot)


def call(name: str, *args) -> None:
    """Run another command; its output goes where ours goes.

    Raises:
        UserError: the command failed.
    """
    command = [sys.executable, '-m', 'convnext_dense.cli', name, *map(str, args)]
    code = subprocess.run(command).returncode
    if code != 0:
        raise UserError(f'`{" ".join(command)}` ended with exit status {code}: its message is above')


def build_page(summary: dict, det: Run, seg: Run, data: Path, work_dir: Path) -> str:
    """The demo's page; its pictures are written beside it too."""
    det_samples = detection_samples(det.predictions_file, data / 'coco/annotations/instances_val2017.json', CLASSES,
                                    PALETTE, PICTURES)
    seg_samples = segmentation_samples(seg.predictions_file, data / 'ade/annotations/validation', SEG_PALETTE, PICTURES)
    write_pictures(work_dir / 'pictures', 'det', det_samples, CLASSES, PALETTE)
    write_pictures(work_dir / 'pictures', 'seg', seg_samples, SEG_CLASSES, SEG_PALETTE)
    figures = [(f'{summary["det"]["bbox_mAP"]:.3f}', 'box AP (COCO, IoU 0.50 to 0.95)'),
               (f'{summary["det"]["segm_mAP"]:.3f}', 'mask AP (COCO, IoU 0.50 to 0.95)'),
               (f'{summary["seg"]["mIoU"]:.4f}', 'mIoU over background and three shapes'),
               (f'{summary["seconds"]:.0f} s', 'data, two trainings, two evaluations')]
    note = f'The first {len(det_samples)} validation images, not chosen by result'
    return render_page('ConvNeXt on generated shapes', 'Mask R-CNN and UPerNet on a small ConvNeXt, trained from '
                       'random weights on this machine with the tools that train the published recipes.', [
                           KeyFigures(figures),
                           run_section(det, det_samples, list(zip(CLASSES, PALETTE, strict=True)),
                                       f'{note}; predictions with a score of 0.5 or more.'),
                           run_section(seg, seg_samples, list(zip(SEG_CLASSES, SEG_PALETTE, strict=True)), f'{note}.'),
                           Section('How this was made', [Table(('what', 'value'), facts(det, seg, data))]),
                       ])


def write_pictures(folder: Path, task: str, samples: list[Sample], classes, palette) -> None:
    """Write each sample as one picture, ground truth | prediction with a legend."""
    folder.mkdir(exist_ok=True)
    for index, sample in enumerate(samples, 1):
        legend = draw_legend(classes, palette, sum(image.shape[1] for _, image in sample.panels))
        (folder / f'{task}_{index}.jpg').write_bytes(encode_jpeg(side_by_side(sample.panels, legend)))


def facts(det: Run, seg: Run, data: Path) -> list[tuple[str, str]]:
    """What someone needs to repeat the run, as table rows."""
    rows = [('finished', time.strftime('%Y-%m-%d %H:%M:%S %z')),
            ('machine', f'{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores'),
            ('data', (data / 'shapes.json').read_text().strip().strip('{}').replace('"', '').strip()),
            ('detection', f'{det.config}, {det.seconds:.0f} s'),
            ('segmentation', f'{seg.config}, {seg.seconds:.0f} s')]
    return rows + list(environment.versions().items())


def announce(step: str) -> None:
    print(f'\n=== demo: {step}', flush=True)
