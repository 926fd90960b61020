"""Training steps without waiting for a GPU: on meta tensors, which have no values to wait for, and counted on data."""
import copy
import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from test_static_step import RECIPES, cases
from tool_runs import ROOT

from convnext_dense.benchmark.step_counts import OperatorCounts
from convnext_dense.mm import transfer

CONFIGS = {**{kind: f'det/{name}' for kind, name in RECIPES.items()},
           'upernet': 'seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py'}


def recipe(kind: str) -> tuple[torch.nn.Module, Config]:
    """A recipe's whole model, with random weights, and its config."""
    cfg = Config.fromfile(ROOT / 'configs' / CONFIGS[kind])
    cfg.model.backbone.init_cfg = None
    if kind == 'upernet':
        cfg.model.data_preprocessor.size = (64, 64)
    else:
        for rcnn in cfg.model.train_cfg.rcnn if kind == 'cascade' else [cfg.model.train_cfg.rcnn]:
            rcnn.sampler.num = 32  # less arithmetic, the same operators
    init_default_scope(cfg.default_scope)
    return revert_sync_batchnorm(MODELS.build(cfg.model)).train(), cfg


def batches(kind: str) -> list[dict]:
    """With objects, and an image without."""
    if kind != 'upernet':
        return [pseudo_collate(cases()[case]) for case in ('some', 'none and one')]
    sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 150, (1, 64, 64)))
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    return [pseudo_collate([dict(inputs=image, data_samples=sample.clone()) for _ in range(2)])]


@pytest.mark.slow
@pytest.mark.parametrize('kind', CONFIGS)
def test_the_whole_step_runs_on_meta_tensors(kind, caplog):
    """Preprocessing, losses, backward and AdamW with the recipe's layer decay; only the fp16 scaler is left out.

    Non-maximum suppression, whose result has a size that depends on values, is one operator with a fake.
    """
    caplog.set_level(logging.WARNING)
    model, cfg = recipe(kind)
    model.to('meta')
    wrapper = build_optim_wrapper(model, {**cfg.optim_wrapper, 'type': 'OptimWrapper'})
    for data in batches(kind):
        losses = model.train_step(data, wrapper)
        assert len(losses) > 3 and {value.device.type for value in losses.values()} == {'meta'}
    assert all(parameter.grad is None or parameter.grad.is_meta for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize('kind', CONFIGS)
def test_counted_on_data_the_host_waits_for_nms_alone(kind, monkeypatch):
    """Once an image; and a step has few operators."""
    monkeypatch.setattr(transfer, 'host_would_wait', lambda tensor: True)  # what is counted is a GPU's step
    model, _ = recipe(kind)
    for data in batches(kind):
        with OperatorCounts() as forward:
            data = model.data_preprocessor(copy.deepcopy(data), training=True)
            loss = model.parse_losses(model(**data, mode='loss'))[0]
        with OperatorCounts() as backward:
            loss.backward()
        print(f'{kind}: {forward.operators} operators forward, {backward.operators} backward; waits '
              f'{dict(forward.waits)}, {dict(backward.waits)}')
        assert forward.waits == ({} if kind == 'upernet' else {'nms': 2}) and not backward.waits
        assert forward.operators <= dict(mask=1200, cascade=2200, upernet=1200)[kind]
