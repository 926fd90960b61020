"""The options that custom_hooks switches on: they change speed and layout, not results or checkpoints."""
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import pseudo_collate
from mmengine.registry import HOOKS
from mmengine.structures import InstanceData
from tool_runs import CONFIGS
from torch import nn

from convnext_dense.benchmark.made_batches import made_samples
from convnext_dense.benchmark.training import build_trainers
from convnext_dense.config import load_config
from convnext_dense.models import BatchPadToSizes, ConvNeXt
from convnext_dense.models.compiling import compile_parts, graphs_made


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = ConvNeXt(dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]))
        self.head = nn.Conv2d(32, 4, 3)

    def forward(self, x):
        return self.head(self.backbone(x)[-1])


def test_compiled_parts_give_the_same_and_save_the_same(capsys):
    torch.manual_seed(0)
    first = graphs_made()
    model, x = Model().eval(), torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        before, keys = model(x), list(model.state_dict())
        calls = []

        def backend(graph, inputs):
            calls.append(graph)
            return graph.forward

        hook, runner = HOOKS.build(dict(type='CompileHook', backend=backend)), SimpleNamespace(
            model=nn.DataParallel(model), iter=0)
        hook.before_train(runner)
        hook.before_train_iter(runner, 0)
        torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)
        hook.after_train_iter(runner, 0)
        assert len(calls) == hook.graphs - first and len(calls) > 0  # the backbone ran through the compiler
        assert f'made {len(calls)} graphs in iteration 1' in capsys.readouterr().out
        hook.before_train_iter(runner, 1)
        model(x)
        hook.after_train_iter(runner, 1)
        assert 'made' not in capsys.readouterr().out
    assert list(model.state_dict()) == keys


def test_channels_last_reaches_the_head_and_changes_nothing_else():
    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        before = model(x)
        assert model.head.weight.is_contiguous()
        HOOKS.build(dict(type='ChannelsLastHook')).before_train(SimpleNamespace(model=model))
        assert model.head.weight.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_losses_of_a_compiled_model_are_those_of_the_model(task):
    """RPN and decode heads, which mmdet and mmseg call in different ways, go through the compiler too."""
    trainer = build_trainers(load_config(str(CONFIGS[task])), 'cpu', compare=False)['ours']
    batch = pseudo_collate(made_samples(trainer.model, 2, (64, 64)))
    expected, seen = trainer.losses(deepcopy(batch)).item(), []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    parts = compile_parts(trainer.model, backend=backend)
    assert parts == {'det': ['backbone', 'neck', 'rpn_head'],
                     'seg': ['backbone', 'decode_head', 'auxiliary_head']}[task]
    assert trainer.losses(deepcopy(batch)).item() == pytest.approx(expected, rel=1e-5)
    assert len(seen) >= len(parts)


def test_batches_are_padded_to_the_smallest_size_that_holds_them():
    pad = BatchPadToSizes([(64, 64), (48, 64), (64, 32)])
    for size, padded in (((20, 30), (64, 32)), ((40, 60), (48, 64)), ((50, 60), (64, 64)), ((48, 64), (48, 64)),
                         ((70, 20), (70, 20))):
        x = torch.randint(1, 9, (2, 3, *size)).float()
        sample = DetDataSample(metainfo=dict(batch_input_shape=size, pad_shape=size))
        sample.gt_instances = InstanceData(masks=BitmapMasks(np.ones((1, *size), np.uint8), *size))
        found, (sample,) = pad(x, [sample])
        assert found.shape[2:] == padded == sample.batch_input_shape and sample.pad_shape == size
        assert torch.equal(found[..., :size[0], :size[1]], x) and found.sum() == x.sum()
        masks = sample.gt_instances.masks
        assert (masks.height, masks.width) == padded and masks.masks.sum() == size[0] * size[1]
    with pytest.raises(ValueError, match=r'sizes must be \(height, width\) pairs of pixels, got \[64\]'):
        BatchPadToSizes([64])
