"""Every published row: its model is the published one, its weights are those named, its schedule is the official one.

test_official_configs.py compares everything else that the config says.
"""
import functools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import ParamSchedulerHook
from mmengine.registry import PARAM_SCHEDULERS
from rows import ROWS, config_path, load_row
from test_official_configs import compare, ours_of

from convnext_dense.checkpoints import zoo
from convnext_dense.optim import parameter_settings
from convnext_dense.recipes.model_info import build_on_meta, model_info, published_input


@functools.cache
def facts(name: str) -> SimpleNamespace:
    """What a row's config turns into, made once for all tests."""
    cfg = load_row(next(row for row in ROWS if row['name'] == name))
    settings = parameter_settings(
        build_on_meta(cfg), cfg.optim_wrapper.paramwise_cfg, cfg.optim_wrapper.optimizer.weight_decay)
    return SimpleNamespace(settings=settings, info=model_info(cfg))


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['name'])
def test_what_only_the_published_row_says(row):
    """Starting weights, input of the FLOPs count, GPUs, and multi-scale testing, which the configs do not name."""
    cfg = load_row(row)
    assert zoo.find(cfg.model.backbone.init_cfg.checkpoint).url == row['pretrained_url']
    assert list(published_input(cfg)) == row['flops_input']
    batch, per_gpu = cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size
    assert f'{batch // per_gpu} GPUs x {per_gpu} images' == row['batch']
    if row['task'] == 'seg':  # whole images: the tester sets model.test_cfg.mode, see convnext_dense/reproduce.py
        resizes, flips, labels, _ = cfg.tta_pipeline[1].transforms
        ratios = row['multi_scale_test']['ratios']
        assert [resize.scale for resize in resizes] == [
            tuple(int(side * ratio) for side in cfg.test_pipeline[1].scale) for ratio in ratios]
        assert all(resize.type == 'Resize' and resize.keep_ratio for resize in resizes)
        assert [(flip.prob, flip.direction) for flip in flips] == [(0.0, 'horizontal'), (1.0, 'horizontal')]
        assert labels[0].reduce_zero_label and cfg.tta_model.type == 'SegTTAModel'


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['name'])
def test_layer_decay_equals_official_for_every_parameter(row, official_layer_decay):
    """Names are the official ones also in the heads: mmdet 3 and mmseg 1 kept those of mmdet 2 and mmseg 0."""
    official, settings = official_layer_decay[row['name']], facts(row['name']).settings
    assert settings.keys() == official.keys()
    for name, (multiplier, weight_decay) in official.items():
        # the reference is rounded to ten digits
        assert settings[name].multiplier == pytest.approx(multiplier, rel=0, abs=5.1e-11), name
        assert settings[name].weight_decay == weight_decay, name


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['name'])
def test_parameters_and_flops_are_the_published_ones(row):
    info = facts(row['name']).info
    assert f'{info["params"] / 1e6:.0f}M' == row['params']
    assert info['flops'] / 1e9 == pytest.approx(float(row['flops'].rstrip('G')), rel=2e-3)
    assert info['params'] == sum(part['params'] for part in info['parts'].values())
    assert info['flops'] == sum(part['flops'] for part in info['parts'].values())


def test_executed_products_of_upernet_are_those_at_the_levels_own_resolutions():
    """At 2048x512 the 3x3 convolutions see levels of 512x128 to 64x16 and pools of 1, 2, 3 and 6 cells squared."""
    info = facts('upernet_convnext-t-in1k_ade20k-512x512').info
    full, last = 512 * 128, 64 * 16
    fusing = 9 * 512 ** 2 * (3 * full - full / 4 - full / 16 - full / 64)
    pooling = 9 * 512 ** 2 * (4 * last - (1 + 4 + 9 + 36))
    interpolation = info['executed'] - (info['flops'] - fusing - pooling)
    assert 0 < interpolation < 0.025 * info['flops']
    detector = facts('mask-rcnn_convnext-t-in1k').info
    assert detector['executed'] == detector['flops']


@pytest.mark.parametrize('name', ['mask-rcnn_convnext-t-in1k', 'cascade-mask-rcnn_convnext-t-in1k',
                                  'upernet_convnext-t-in1k_ade20k-512x512'])
def test_state_dict_is_that_of_the_official_checkpoint(name, official_keys):
    row = next(row for row in ROWS if row['name'] == name)
    ours = {key: list(value.shape) for key, value in build_on_meta(load_row(row)).state_dict().items()}
    assert ours == official_keys[name]


COCO_EPOCH = 7330  # the 117,266 images of train2017 with annotations, 16 an iteration


def official_schedule(official: dict) -> np.ndarray:
    """What multiplies every learning rate in each iteration: mmcv 1's LrUpdaterHook with its linear warm-up."""
    lr, runner = official['lr_config'], official['runner']
    iterations = np.arange(runner['max_iters'] if 'max_iters' in runner else runner['max_epochs'] * COCO_EPOCH)
    if lr['policy'] == 'poly':
        assert lr['min_lr'] == 0
        regular = (1 - iterations / len(iterations)) ** lr['power']
    else:
        assert lr['policy'] == 'step'
        regular = 0.1 ** sum(iterations // COCO_EPOCH >= epoch for epoch in lr['step'])
    progress = np.minimum(iterations / lr['warmup_iters'], 1)
    return regular * (1 - (1 - progress) * (1 - lr['warmup_ratio']))


@functools.cache
def mmengine_schedule(schedulers: str, length: int, rates: tuple[float, ...]) -> np.ndarray:
    """(length, rates) learning rates before each iteration, stepped by mmengine's own hook."""
    optimizer = torch.optim.SGD([dict(params=[torch.zeros(1, requires_grad=True)], lr=rate) for rate in rates])
    runner = SimpleNamespace(param_schedulers=[
        PARAM_SCHEDULERS.build(dict(cfg, optimizer=optimizer)) for cfg in json.loads(schedulers)])
    optimizer.step()  # schedulers warn where they are stepped first
    hook, found = ParamSchedulerHook(), np.empty((length, len(rates)))
    for i in range(length):
        found[i] = [group['lr'] for group in optimizer.param_groups]
        hook.after_train_iter(runner, i)
        if (i + 1) % COCO_EPOCH == 0:
            hook.after_train_epoch(runner)
    return found


def rates_and_expected(row: dict, official: dict) -> tuple[np.ndarray, np.ndarray]:
    """A row's learning rate in every iteration over its base rate, and what the official formula says."""
    cfg, expected = load_row(row), official_schedule(official)
    assert cfg.optim_wrapper.optimizer.lr == official['optimizer']['lr'] == row['lr']
    rates = tuple(sorted({other['lr'] for other in ROWS if other['task'] == row['task']}))
    found = mmengine_schedule(json.dumps(cfg.param_scheduler), len(expected), rates)
    return found[:, rates.index(row['lr'])] / row['lr'], expected


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['name'])
def test_every_learning_rate_is_the_official_one(row, official_configs):
    found, expected = rates_and_expected(row, official_configs[row['name']])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    if row['task'] == 'seg':  # the last iteration still trains
        assert found[-1] == pytest.approx(1 / 160000, rel=1e-6)


def test_summary(capsys, official_layer_decay, official_configs):
    """One line per row, as the tests above hold it."""
    lines = [f'{"recipe":40} values  no counterpart  lr multipliers  largest lr error of all iterations  '
             'params (M)  published  FLOPs (G)  published']
    for row in ROWS:
        settings, info = vars(facts(row['name'])).values()
        wrong, same, none = compare(official_configs[row['name']], ours_of(row['name']), row['task'])
        official = official_layer_decay[row['name']]
        equal = sum(abs(settings[name].multiplier - mult) < 5.1e-11 and settings[name].weight_decay == decay
                    for name, (mult, decay) in official.items())
        found, expected = rates_and_expected(row, official_configs[row['name']])
        lines.append(f'{row["name"]:40} {same - len(wrong):3}/{same:3}  {none:13}   {equal:4}/{len(official):4}  '
                     f'{abs(found - expected).max():12.1e} of {len(found):7} iterations  '
                     f'{info["params"] / 1e6:11.2f}  {row["params"]:>9}  {info["flops"] / 1e9:9.1f}  {row["flops"]:>9}')
        assert not wrong and equal == len(official) == len(settings), lines[-1]
    with capsys.disabled():
        print('\n' + '\n'.join(lines))


def test_leaves_are_short_and_only_these():
    paths = {config_path(row) for row in ROWS}
    assert len(paths) == 13
    for path in paths:
        assert len(path.read_text().splitlines()) <= 15, path
