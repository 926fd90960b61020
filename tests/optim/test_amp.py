"""The mixed-precision wrapper: which type it computes in on each machine, when it scales losses, what it saves."""
import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import nn

from convnext_dense.engine.runner import DenseRunner
from convnext_dense.engine.training_watch import WatchTrainingHook
from convnext_dense.errors import UserError
from convnext_dense.optim import MixedPrecisionOptimWrapper
from convnext_dense.optim.amp import for_this_machine

INPUT, TARGET = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8.0)[:, None]


@pytest.fixture
def machine(monkeypatch):
    """Pretend that mmengine sees a device of that type."""
    def pretend(device: str, bf16: bool = True):
        monkeypatch.setattr('convnext_dense.optim.amp.get_device', lambda: device)
        monkeypatch.setattr('torch.cuda.amp.common.amp_definitely_not_available', lambda: device != 'cuda')
        monkeypatch.setattr('torch.cuda.is_bf16_supported', lambda: bf16)
    return pretend


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 1)


def build(model: nn.Module, **kwargs) -> MixedPrecisionOptimWrapper:
    return OPTIM_WRAPPERS.build(dict(type='MixedPrecisionOptimWrapper', **kwargs,
                                     optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)))


def train(model: nn.Module, wrapper, steps: int = 3) -> torch.dtype:
    for _ in range(steps):
        with wrapper.optim_context(model):
            out = model(INPUT)
            loss = (out.float() - TARGET).square().mean()
        wrapper.update_params(loss)
    return out.dtype


def trained_by_torch(dtype: torch.dtype) -> nn.Linear:
    """The same training without mmengine."""
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(3):
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            loss = (model(INPUT).float() - TARGET).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize('kwargs, dtype', [
    ({}, torch.float32), ({'dtype': 'float16'}, torch.float32), ({'loss_scale': 512}, torch.float32),
    ({'dtype': 'float32'}, torch.float32), ({'dtype': 'bfloat16'}, torch.bfloat16),
    ({'dtype': torch.bfloat16, 'loss_scale': 512.0}, torch.bfloat16)])
def test_cpu_training_equals_plain_torch(kwargs, dtype, machine):
    machine('cpu')
    model = linear()
    wrapper = build(model, **kwargs)
    assert train(model, wrapper) == dtype
    assert not wrapper.loss_scaler.is_enabled()
    assert torch.equal(model.weight, trained_by_torch(dtype).weight)


@pytest.mark.parametrize('kwargs, scales', [
    ({}, True), ({'dtype': 'float16'}, True), ({'loss_scale': 512.0}, True),
    ({'loss_scale': {'init_scale': 8.0}}, True), ({'dtype': 'bfloat16'}, False),
    ({'dtype': 'bfloat16', 'loss_scale': 512.0}, False), ({'dtype': 'float32'}, False)])
def test_losses_are_scaled_in_fp16_only(kwargs, scales, machine):
    """On a CUDA machine; scales are powers of two, so training ends at the weights of an unscaled one."""
    machine('cuda')
    model = linear()
    wrapper = build(model, **kwargs)
    assert wrapper.loss_scaler.is_enabled() == scales
    train(model, wrapper)
    torch.testing.assert_close(model.weight, trained_by_torch(torch.float32).weight, rtol=1e-6, atol=0)
    assert ('loss_scaler' in wrapper.state_dict()) == scales
    if 'loss_scale' in kwargs and scales:
        expected = kwargs['loss_scale'] if isinstance(kwargs['loss_scale'], float) else 8.0
        assert wrapper.loss_scaler.get_scale() == expected


@pytest.mark.parametrize('before', ['float16', 'bfloat16', 'float32'])
@pytest.mark.parametrize('after', ['float16', 'bfloat16', 'float32'])
def test_a_run_continues_in_any_precision(before, after, machine):
    machine('cuda')
    first, second = linear(), linear()
    old, new = build(first, dtype=before), build(second, dtype=after)
    train(first, old)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    second.load_state_dict(first.state_dict())
    train(first, old)
    train(second, new)
    torch.testing.assert_close(second.weight, first.weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize('device, wrapper_type, expected', [
    ('cpu', 'AmpOptimWrapper', 'MixedPrecisionOptimWrapper'), ('cuda', 'AmpOptimWrapper', 'MixedPrecisionOptimWrapper'),
    ('cpu', AmpOptimWrapper, 'MixedPrecisionOptimWrapper'), ('npu', 'AmpOptimWrapper', 'AmpOptimWrapper'),
    ('cuda', 'OptimWrapper', 'OptimWrapper')])
def test_a_config_is_served_by_the_wrapper_for_the_machine(device, wrapper_type, expected, machine):
    machine(device)
    cfg = ConfigDict(type=wrapper_type, dtype='bfloat16', optimizer=dict(type='AdamW', lr=1e-4))
    changed = for_this_machine(cfg)
    assert changed['type'] == expected and cfg.type == wrapper_type
    assert {**changed, 'type': None} == {**cfg, 'type': None}


@pytest.mark.parametrize('device, setting, expected', [
    ('cuda', True, (True, True)), ('cuda', False, (False, False)), ('cuda', None, (False, True)),
    ('cpu', True, (False, True))])
def test_tf32_is_what_the_config_says(device, setting, expected, monkeypatch):
    """Without a setting, and on a CPU, torch's default stands: convolutions only."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    monkeypatch.setattr('convnext_dense.engine.runner.get_device', lambda: device)
    runner = DenseRunner.__new__(DenseRunner)
    runner._launcher, runner._distributed, runner._train_dataloader = 'none', False, None
    monkeypatch.setattr(Runner, 'setup_env', lambda self, env_cfg: None)
    assert [backend.allow_tf32 for backend in backends] == [False, True]
    try:
        runner.setup_env(dict(tf32=setting))
        assert tuple(backend.allow_tf32 for backend in backends) == expected
    finally:
        backends[0].allow_tf32, backends[1].allow_tf32 = False, True


def test_a_built_wrapper_stays():
    wrapper = build(linear(), dtype='bfloat16')
    assert for_this_machine(wrapper) is wrapper


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_the_runner_takes_it(device, machine):
    machine(device)
    runner = DenseRunner.__new__(DenseRunner)
    runner.model, runner.cfg = linear(), {}
    wrapper = runner.build_optim_wrapper(ConfigDict(
        type='AmpOptimWrapper', dtype='bfloat16', optimizer=dict(type='SGD', lr=0.1)))
    assert type(wrapper) is MixedPrecisionOptimWrapper and not wrapper.loss_scaler.is_enabled()


@pytest.mark.parametrize('dtype, patience', [('bfloat16', 1), ('float16', 20)])
def test_a_loss_that_is_not_finite_ends_bf16_training_at_once(dtype, patience, machine, tmp_path):
    """In fp16 the scaler may overflow for some iterations."""
    machine('cuda')
    model = linear()
    runner = SimpleNamespace(model=model, optim_wrapper=build(model, dtype=dtype), iter=0, max_iters=100,
                             work_dir=str(tmp_path))
    hook = WatchTrainingHook(patience=20)
    for _ in range(patience - 1):
        hook.after_train_iter(runner, 0, {}, dict(loss=torch.tensor(float('inf'))))
    with pytest.raises(UserError, match='the loss is inf, which is not finite'):
        hook.after_train_iter(runner, 0, {}, dict(loss=torch.tensor(float('inf'))))


@pytest.mark.parametrize('kwargs, words', [
    ({'dtype': 'float64'}, "optim_wrapper.dtype: expected one of float16, bfloat16, float32, found 'float64'"),
    ({'dtype': 'half'}, "found 'half'"), ({'loss_scale': 'static'}, "optim_wrapper.loss_scale: expected 'dynamic'")])
def test_what_it_cannot_be_is_one_sentence(kwargs, words):
    with pytest.raises(UserError) as error:
        build(linear(), **kwargs)
    assert words in str(error.value) and '\n' not in str(error.value)


def test_bf16_on_a_gpu_without_it_is_one_sentence(machine):
    machine('cuda', bf16=False)
    with pytest.raises(UserError, match='this GPU has no bf16: use --amp fp16'):
        build(linear(), dtype='bfloat16')


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_a_gpu_computes_in_that_type(dtype):
    model = linear().cuda()
    wrapper = build(model, dtype=dtype)
    with wrapper.optim_context(model):
        out = model(INPUT.cuda())
        loss = (out.float() - TARGET.cuda()).square().mean()
    assert out.dtype == getattr(torch, dtype)
    wrapper.update_params(loss)
    assert wrapper.loss_scaler.is_enabled() == (dtype == 'float16')
    assert not torch.equal(model.weight.cpu(), linear().weight)
