"""Channels-last training with several ranks: the model is converted before its gradient buckets are laid out."""
import warnings
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from torch import nn

from convnext_dense.engine.hooks import ChannelsLastHook
from convnext_dense.engine.runner import DenseRunner


@pytest.fixture
def process_group(tmp_path, monkeypatch):
    """This process as the only rank of a gloo group."""
    monkeypatch.setattr('convnext_dense.engine.runner.get_device', lambda: 'cpu')
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/meeting', rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_gradients_have_the_strides_of_their_buckets(process_group):
    """torch warns, and copies every gradient, where they differ."""
    cfg = Config(dict(custom_hooks=[dict(type='ChannelsLastHook')]))
    stub = SimpleNamespace(cfg=cfg, distributed=True, logger=SimpleNamespace(info=lambda text: None))
    model = DenseRunner.wrap_model(stub, None, nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 8, 3)))
    assert isinstance(model, MMDistributedDataParallel)
    ChannelsLastHook().before_train(SimpleNamespace(model=model))
    images = torch.rand(2, 8, 16, 16).to(memory_format=torch.channels_last)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        nn.parallel.DistributedDataParallel.forward(model, images).sum().backward()
    assert not [str(warning.message) for warning in caught if 'strides' in str(warning.message)]
    for parameter in model.parameters():
        if parameter.ndim == 4:
            assert parameter.grad.is_contiguous(memory_format=torch.channels_last)


def test_a_single_process(tmp_path):
    runner = SimpleNamespace(model=nn.Sequential(nn.Conv2d(8, 16, 3)))
    ChannelsLastHook().before_train(runner)
    assert runner.model[0].weight.is_contiguous(memory_format=torch.channels_last)
