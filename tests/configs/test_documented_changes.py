"""Every change that docs/recipes.md shows works: leaves build, options reach the config and mean something to it."""
import re
import shlex

import pytest
import torch
from mmengine.registry import HOOKS, VISBACKENDS
from rows import ROOT, ROWS, config_path

from convnext_dense.config import load_config
from convnext_dense.engine.runner import set_amp
from convnext_dense.optim import parameter_settings
from convnext_dense.recipes.model_info import build_on_meta, model_info

TEXT = (ROOT / 'docs/recipes.md').read_text()
LEAVES = re.findall(r'```python\n# leaf: (configs/\w+/)\n(.*?)```', TEXT, re.DOTALL)
TABLE = re.findall(r'^\| ([^|]+) \| `--cfg-options (.+)` \|$', TEXT, re.MULTILINE)
OPTIONS = {what.strip(): shlex.split(how) for what, how in TABLE}
T_DET, T_SEG = (next(row for row in ROWS if row['name'].startswith(name)) for name in ('mask-rcnn', 'upernet'))


def changed(what: str):
    """The configs before and after a documented change."""
    row = T_SEG if 'segmentation' in what else T_DET
    path = str(config_path(row))
    return load_config(path), load_config(path, OPTIONS[what])


@pytest.mark.parametrize('folder, text', LEAVES, ids=['another-size', 'boxes-only'])
def test_leaf_builds(folder, text, tmp_path):
    leaf = tmp_path / 'leaf.py'
    leaf.write_text(text.replace("'./", f"'{ROOT / folder}/"))
    cfg = load_config(str(leaf))
    model = build_on_meta(cfg)
    assert parameter_settings(model, cfg.optim_wrapper.paramwise_cfg, 0.05)
    if 'FasterRCNN' in text:
        assert not any('mask' in name for name, _ in model.named_parameters())
        info = model_info(cfg)
        whole = model_info(load_config(str(config_path(T_DET))))
        assert info['flops'] == whole['flops'] - whole['parts']['roi_head.mask_head']['flops']
        assert cfg.val_evaluator.metric == cfg.test_evaluator.metric == 'bbox'
    else:
        assert model.backbone.depths == (3, 3, 27, 3)


def test_all_documented_changes_are_here():
    assert len(LEAVES) == 2 and len(OPTIONS) == 13, OPTIONS


@pytest.mark.parametrize('what', OPTIONS)
def test_option_builds(what):
    before, after = changed(what)
    assert before.to_dict() != after.to_dict()
    for backend in after.visualizer.vis_backends:
        assert VISBACKENDS.get(backend.type) is not None
    for hook in after.custom_hooks:
        assert HOOKS.get(hook.type) is not None
    model = build_on_meta(after)
    settings = parameter_settings(model, after.optim_wrapper.paramwise_cfg, 0.05)
    multipliers = {setting.multiplier for setting in settings.values()}
    if what == 'no layer decay':
        assert multipliers == {1.0}
    if what == 'a part of the model at its own rate':
        assert {s.multiplier for name, s in settings.items() if name.startswith('neck')} == {2.0}
    if what == 'activation checkpointing':
        assert model.backbone.with_cp
    if what == '1x schedule (detection)':
        assert after.param_scheduler[1].milestones == [8, 11] and after.param_scheduler[1].end == 12
        assert after.train_cfg.max_epochs == 12
    if what == 'half the schedule (segmentation)':
        assert (after.param_scheduler[1].end, after.train_cfg.max_iters) == (80001, 80000)  # mmengine counts the end in


def test_bf16_and_float32():
    cfg = load_config(str(config_path(T_DET)))
    set_amp(cfg, 'bf16')
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ('AmpOptimWrapper', 'bfloat16')
    set_amp(cfg, 'off')
    assert cfg.optim_wrapper.type == 'OptimWrapper' and 'dtype' not in cfg.optim_wrapper


def test_activation_checkpointing_changes_no_gradient():
    """The key that docs name saves memory only: same loss, same gradients."""
    from mmengine.registry import MODELS
    grads = []
    for options in ([], OPTIONS['activation checkpointing']):
        cfg = load_config(str(config_path(T_DET)), options)
        cfg.model.backbone.update(arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32]), init_cfg=None,
                                  drop_path_rate=0.0)
        torch.manual_seed(0)
        backbone = MODELS.build(cfg.model.backbone).train()
        loss = sum(feature.square().mean() for feature in backbone(torch.randn(1, 3, 64, 64)))
        loss.backward()
        grads.append([loss.detach(), *(param.grad for param in backbone.parameters())])
    for plain, checkpointed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=1e-6, atol=1e-7)
