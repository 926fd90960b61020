"""Train a detector with the stock stack's step and with ours, from the same random weights, and compare their AP.

    python tests/detection/compare_training.py ../shared/data/pennfudan --out work_dirs/compared

Prints the table of docs/speed.md: a Mask R-CNN like the demo's, but smaller, on the demo's data (which are made) and on
Penn-Fudan. For each seed both sides have the same initial weights, images and schedule; what differs is the code of the
network (mmdet's own heads on the official backbone's code, or ours), and which samples RPN and RoI heads draw. A run
has one CPU thread. Runs that `--out` has already are not trained again.
"""
import argparse
import copy
import json
import time
from pathlib import Path
from statistics import mean, stdev

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from convnext_dense.benchmark.stock import stock_config
from convnext_dense.config import load_config
from convnext_dense.datasets.shapes import ShapesParams, generate_shapes
from convnext_dense.engine.runner import DenseRunner, prepare_training
from convnext_dense.mm.device import use_device
from convnext_dense.utils.quiet import quiet

CONFIG = 'det/mask-rcnn_convnext-atto_fpn_1xb8-4e_shapes.py'
METRICS = {'box AP': 'coco/bbox_mAP', 'mask AP': 'coco/segm_mAP'}
SHAPES = ShapesParams(seed=0, train=800, val=100, size=128)  # the demo's
DEPTHS, CHANNELS, WIDTH = [1, 1, 2, 1], [24, 48, 96, 192], 32  # of the backbone, and width of neck and heads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pennfudan', type=Path, help='folder with images/ and annotations/instances_{train,val}.json')
    parser.add_argument('--out', type=Path, required=True, help='folder for the shapes, the runs and their metrics')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--iterations', type=int, nargs=2, default=(600, 350), metavar=('SHAPES', 'PENNFUDAN'))
    args = parser.parse_args()
    torch.set_num_threads(1)
    use_device('cpu')
    if not (args.out / 'shapes').exists():
        generate_shapes(args.out / 'shapes', SHAPES)
    configs = dict(shapes=small_config(str(args.out / 'shapes/coco')), pennfudan=pennfudan_config(args.pennfudan))
    runs = {}
    for seed in range(args.seeds):
        for (data, cfg), iterations in zip(configs.items(), args.iterations, strict=True):
            for side in ('stock', 'ours'):
                folder = args.out / f'{data}-{iterations}-{side}-{seed}'
                runs.setdefault(data, {}).setdefault(side, []).append(trained(cfg, side, seed, iterations, folder))
    print(table(runs, dict(zip(configs, args.iterations, strict=True))))


def small_config(data_root: str | None = None) -> Config:
    """The demo's detector with a smaller backbone, half as wide a neck and heads, and batches of 4 images."""
    cfg = load_config(CONFIG, data_root=data_root)
    model, heads = cfg.model, cfg.model.roi_head
    model.backbone.arch = dict(depths=DEPTHS, channels=CHANNELS)
    model.neck.update(in_channels=CHANNELS, out_channels=WIDTH)
    model.rpn_head.update(in_channels=WIDTH, feat_channels=WIDTH)
    heads.bbox_roi_extractor.out_channels = heads.mask_roi_extractor.out_channels = WIDTH
    heads.bbox_head.update(in_channels=WIDTH, fc_out_channels=4 * WIDTH)
    heads.mask_head.update(in_channels=WIDTH, conv_out_channels=WIDTH)
    cfg.train_dataloader.batch_size = 4
    cfg.optim_wrapper.optimizer.lr /= 2
    return cfg


def pennfudan_config(root: Path) -> Config:
    """The same for Penn-Fudan: one class, images of up to 160 pixels, anchors for people."""
    cfg = small_config()
    for head in (cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = 1
    cfg.model.rpn_head.anchor_generator.ratios = [1.0, 2.0, 3.0]  # height over width
    for split, loader in dict(train=cfg.train_dataloader, val=cfg.val_dataloader).items():
        loader.dataset.update(type='FastCocoDataset', data_root=str(root), data_prefix=dict(img='images/'),
                              ann_file=f'annotations/instances_{split}.json', metainfo=dict(classes=('person',)))
        resize = next(step for step in loader.dataset.pipeline if step.type == 'Resize')
        resize.scale = (160, 160)
    cfg.val_evaluator.ann_file = str(root / 'annotations/instances_val.json')
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    return cfg


def trained(cfg: Config, side: str, seed: int, iterations: int, folder: Path) -> dict:
    """Metrics of one run, and its processor time in seconds."""
    result = folder / 'result.json'
    if result.is_file():
        return json.loads(result.read_text())
    weights = folder.parent / f'initial-{cfg.model.roi_head.bbox_head.num_classes}-{seed}.pth'
    if not weights.is_file():
        weights.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dict(state_dict=initial_weights(cfg, seed)), weights)
    cfg = stock_config(cfg) if side == 'stock' else copy.deepcopy(cfg)
    cfg.model.backbone.pop('init_cfg', None)
    cfg.load_from, cfg.work_dir, cfg.randomness = str(weights), str(folder), dict(seed=seed)
    cfg.experiment_name = f'{folder.name} {time.time()}'
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
        dict(type='CosineAnnealingLR', eta_min=1e-5, T_max=iterations, begin=0, end=iterations, by_epoch=False)]
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.default_hooks.checkpoint = dict(type='SafeCheckpointHook', by_epoch=False, interval=iterations)
    cfg.default_hooks.logger.interval = 20
    cfg.log_processor.by_epoch = False
    runner = DenseRunner.from_cfg(prepare_training(cfg))
    heads = [type(head).__module__.partition('.')[0] for head in (runner.model.rpn_head, runner.model.roi_head)]
    assert heads == [dict(stock='mmdet', ours='convnext_dense')[side]] * 2, heads
    begin = time.process_time()
    runner.train()
    found = {name: runner.message_hub.get_scalar(f'val/{key}').current() for name, key in METRICS.items()}
    found['seconds'] = round(time.process_time() - begin)
    result.write_text(json.dumps(found))
    print(folder.name, found, flush=True)
    return found


def initial_weights(cfg: Config, seed: int) -> dict:
    """The state dict of a new model; both sides have the same names."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), quiet():
        model = MODELS.build(cfg.model)
        model.init_weights()
    return model.state_dict()


def table(runs: dict, iterations: dict[str, int]) -> str:
    """As Markdown: AP of each seed, mean and standard deviation over seeds, and the difference of the means."""
    lines = ['| data, iterations | metric | side | each seed | mean | standard deviation | ours - stock |',
             '| --- | --- | --- | --- | ---: | ---: | ---: |']
    for data, sides in runs.items():
        for metric in METRICS:
            values = {side: [100 * run[metric] for run in found] for side, found in sides.items()}
            for side, found in values.items():
                difference = f'{mean(found) - mean(values["stock"]):+.1f}' if side == 'ours' else ''
                spread = f'{stdev(found):.1f}' if len(found) > 1 else '-'
                lines.append(f'| {data}, {iterations[data]} | {metric} | {side} | '
                             f'{", ".join(f"{value:.1f}" for value in found)} | {mean(found):.1f} | {spread} | '
                             f'{difference} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
