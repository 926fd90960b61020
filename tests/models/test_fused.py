"""Fused operators: their values under Triton's interpreter, that they compile for GPUs, and when they are used."""
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from tool_runs import must_run
from torch import nn

from convnext_dense import ConvNeXt
from convnext_dense.benchmark import kernels as benchmark
from convnext_dense.benchmark.timing import exact_float32
from convnext_dense.models import fused
from convnext_dense.models.fused import choice, ops


@pytest.mark.slow
def test_values_and_gradients_by_the_interpreter(repo_root):
    pytest.importorskip('triton')
    done = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-x', 'tests/models/interpreted_kernels.py'],
                          cwd=repo_root, env={**os.environ, 'TRITON_INTERPRET': '1', 'CUDA_VISIBLE_DEVICES': '-1'},
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:]
    assert int(re.search(r'(\d+) passed', done.stdout)[1]) == 20


@pytest.mark.slow
def test_kernels_compile_for_three_gpus_without_spilling(tmp_path):
    """Registers as ptxas counts them; it is Triton's own, and needs no GPU."""
    pytest.importorskip('triton')
    finished = must_run('benchmark', 'kernels', '--channels', 2816, '--dtypes', 'bfloat16', '--json',
                        tmp_path / 'found.json')
    kernels = [k for row in json.loads((tmp_path / 'found.json').read_text())['rows'] for k in row['kernels']]
    assert len(kernels) == 3 * 12 and {k['arch'] for k in kernels} == {80, 90, 100}
    assert [k for k in kernels if k['spilled']] == [] and '36 kernels compiled, 0 spill' in finished.out
    assert max(k['registers'] * k['warps'] * 32 for k in kernels) <= 65536  # of a multiprocessor


def test_bytes_that_are_moved():
    """Of maps with 2 x 5 x 7 positions and 24 channels in bf16: 3360 bytes each."""
    found = {name: benchmark.bytes_moved(case)
             for name, case in benchmark.cases((2, 5, 7), 24, torch.bfloat16).items()}
    added = found['scale + sum']
    assert added['moved_mb'] * 1e6 == added['least_mb'] * 1e6 == pytest.approx(3 * 3360 + 24 * 4)
    assert found['depthwise + norm']['least_mb'] * 1e6 == pytest.approx(2 * 3360 + (49 + 3) * 24 * 4)
    assert found['GRN']['moved_mb'] * 1e6 > 3 * 4 * 3360 > found['GRN']['least_mb'] * 1e6 > 2 * 4 * 3360
    for row in found.values():
        assert row['least_mb'] <= row['moved_mb']


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('channels', [40, 96, 768, 2816])
def test_a_gpu_computes_the_same(channels, dtype):
    with exact_float32():
        for name, case in benchmark.cases((2, 13, 19), channels, dtype).items():
            found = benchmark.measure(case)
            assert found['difference'] < {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype], name


@pytest.fixture
def on_a_gpu(monkeypatch, tmp_path):
    """A made GPU: makes its maps, lists the measurements; the fused function says whether it is the faster one."""
    calls = []

    class Map(torch.Tensor):
        is_cuda = True

    monkeypatch.setenv('CONVNEXT_DENSE_CACHE', str(tmp_path))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Made GPU/1')
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: False)
    monkeypatch.setattr(choice, 'is_faster', lambda fused, plain, maps, parameters: (calls.append(1), fused())[1])
    monkeypatch.setattr(choice, 'has_triton', lambda: True)
    forget()
    yield lambda *shape, dtype=torch.float32: torch.zeros(shape, dtype=dtype).as_subclass(Map), calls, tmp_path
    forget()


def forget():
    """As another process starts."""
    choice.answers.cache_clear()
    choice._decided.clear()


def test_each_size_and_type_is_measured_once_and_kept(on_a_gpu):
    make, calls, folder = on_a_gpu
    small, large = make(1, 4, 4, 8), make(1, 64, 64, 8)

    def ask(x, faster, channels=8):
        return choice.wanted('sum', None, lambda: faster, [x], [torch.zeros(channels)])

    assert ask(small, False) is False and ask(large, True) is True and len(calls) == 2
    assert ask(small, True) is False and ask(make(1, 4, 4, 8, dtype=torch.float16), True) is True and len(calls) == 3
    with torch.no_grad():
        assert ask(small, True) is True and len(calls) == 4
    assert ask(small, True, channels=16) is True and len(calls) == 5
    forget()
    assert ask(small, True) is False and ask(large, False) is True and len(calls) == 5
    file, = folder.glob('fused_kernels/*.json')
    assert sorted(json.loads(file.read_text()).values()) == [False, True, True, True, True]
    file.write_text('{"broken')
    forget()
    assert ask(small, True) is True and len(calls) == 6


def test_modes_and_what_is_never_fused(on_a_gpu):
    make, calls, _ = on_a_gpu
    with fused.fused_kernels('always'):
        assert choice.wanted('sum', None, None, [make(1, 2, 2, 4)], [])
        assert not choice.wanted('sum', None, None, [make(1, 2, 2, 4, dtype=torch.float64)], [])
        assert not choice.wanted('sum', None, None, [torch.zeros(1, 2, 2, 4)], [])  # on the CPU
    with fused.fused_kernels('never'):
        assert not choice.wanted('sum', None, lambda: True, [make(1, 2, 2, 4)], [])
    assert not calls
    with pytest.raises(ValueError, match="expected one of measured, always, never, got 'no'"):
        fused.set_fused_kernels('no')


@pytest.mark.parametrize('use_grn', [False, True])
def test_a_network_of_fused_operators_is_the_same(use_grn, monkeypatch):
    """The fused path of the modules, with each operator's plain form in its place."""
    torch.manual_seed(0)
    net = ConvNeXt(dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16]), use_grn=use_grn, drop_path_rate=0.3,
                   layer_scale_init_value=0.0 if use_grn else 0.5)
    for name, parameter in net.named_parameters():
        if 'grn' in name:
            nn.init.normal_(parameter)
    x = torch.randn(2, 3, 48, 64)

    def run():
        torch.manual_seed(1)
        net.zero_grad()
        maps = net(x)
        sum(m.square().mean() for m in maps).backward()
        return [*maps, *(p.grad.clone() for p in net.parameters())]

    expected, used = run(), []

    def stand_in(name):
        def run_plain(*args):
            used.append(name)
            plain = getattr(ops, f'{name}_reference')
            return {'depthwise_norm': lambda: plain(*args[:6]), 'grn': lambda: (plain(*args),),
                    'residual': lambda: plain(*args[:4])}[name]()
        return run_plain

    for name in ('depthwise_norm', 'grn', 'residual'):
        monkeypatch.setattr(ops, name, stand_in(name))
    monkeypatch.setattr(choice, 'wanted', lambda *args: True)
    for a, b in zip(run(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert set(used) == ({'depthwise_norm', 'grn'} if use_grn else {'depthwise_norm', 'residual'})
