"""The options that custom_hooks switches on: they change speed and layout, not results or checkpoints."""
from types import SimpleNamespace

import torch
from mmengine.registry import HOOKS
from torch import nn

from convnext_dense.models import ConvNeXt


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = ConvNeXt(dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]))
        self.head = nn.Conv2d(32, 4, 3)

    def forward(self, x):
        return self.head(self.backbone(x)[-1])


def test_compiled_backbone_gives_the_same_and_saves_the_same():
    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        before, keys = model(x), list(model.state_dict())
        calls = []

        def backend(graph, inputs):
            calls.append(graph)
            return graph.forward

        HOOKS.build(dict(type='CompileBackboneHook', backend=backend)).before_train(
            SimpleNamespace(model=nn.DataParallel(model)))
        torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)
    assert calls  # the backbone ran through the compiler
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
