"""tools/benchmark.py train: what a step launches and waits for, and that both sides are the same training step."""
import json

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from tool_runs import must_run, run_tool
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import nms

from convnext_dense.benchmark import training
from convnext_dense.benchmark.step_counts import OperatorCounts, SavedBytes
from convnext_dense.benchmark.stock import stock_config
from convnext_dense.config import load_config
from convnext_dense.mm import transfer


@pytest.fixture(autouse=True)
def any_device(monkeypatch):
    monkeypatch.setattr(training, 'use_device', lambda device: None)


def test_operators_and_waits_are_counted():
    x, boxes = torch.arange(6.0), torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1.9]])
    with OperatorCounts() as counts:
        x.view(2, 3).t()[0]  # views
        mask = x > 2  # 1
        x[mask]  # 2
        x[torch.tensor([1, 2])]  # 3
        y = x + 1  # 4
        y[mask] = x[:3]  # 5
        mask.nonzero()  # 6
        float(y.sum())  # 7 to 8
        x.unique()  # 9
        nms(boxes, boxes[:, 0], 0.5)  # 10
    assert counts.waits == {'boolean index': 2, 'nonzero': 1, 'item': 1, 'unique': 1, 'nms': 1}
    assert counts.operators == 10


def test_bytes_that_the_backward_pass_needs():
    """Of 10 rows: the input and the output of tanh; the weights are parameters. Recomputing keeps the input alone."""
    net = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4))
    x = torch.randn(10, 16)
    with SavedBytes(net.parameters()) as saved:
        net(x)
    assert saved.total == 4 * 10 * (16 + 8)
    with SavedBytes(net.parameters()) as saved:
        checkpoint(net, x.clone().requires_grad_(), use_reentrant=False)
    assert saved.total <= 4 * 10 * 16


@pytest.mark.parametrize('task, parts', [
    ('det', {'data', 'backbone', 'neck', 'RPN', 'RoI heads', 'other', 'backward', 'optimizer'}),
    ('seg', {'data', 'backbone', 'decode head', 'auxiliary head', 'other', 'backward', 'optimizer'})])
def test_both_tasks(task, parts, tiny, tmp_path):
    finished = must_run('benchmark', 'train', tiny[task], '--compare', '--rounds', 1, '--no-memory',
                        '--json', tmp_path / 'found.json')
    row = json.loads((tmp_path / 'found.json').read_text())['batches'][0]
    stock, ours = row['sides']['stock'], row['sides']['ours']
    assert set(stock['parts_ms']) == set(ours['parts_ms']) == parts and row['images'] == 2
    assert ours['loss'] == pytest.approx(stock['loss'], rel=1e-4)
    assert ours['gradient_norm'] == pytest.approx(stock['gradient_norm'], rel=1e-2)
    assert f"| {row['ratios'][0]:.2f}" in finished.out or f"median {row['ratios'][0]:.2f}" in finished.out
    waits = sum(sum(part['waits'].values()) for part in stock['counts'].values())
    assert waits > (100 if task == 'det' else 0) and f'| waits | {waits} |' in finished.out


@pytest.mark.slow
def test_host_time_is_that_of_a_gpus_operators(tiny, tmp_path):
    """On a CPU our RoI heads look at values; with --host they have fixed shapes, and NMS of each image alone waits."""
    must_run('benchmark', 'train', tiny['det'], '--compare', '--host', '--rounds', 1, '--no-memory', '--json',
             tmp_path / 'found.json')
    found = json.loads((tmp_path / 'found.json').read_text())['batches'][0]['sides']
    assert found['ours']['counts']['forward']['waits'] == {'nms': 2} and not transfer.host_would_wait(torch.ones(1))
    assert found['ours']['loss'] == pytest.approx(found['stock']['loss'], rel=1e-4)
    forward = {side: counts['counts']['forward'] for side, counts in found.items()}
    assert forward['ours']['operators'] < forward['stock']['operators'] and forward['stock']['waits']['item'] > 20


@pytest.mark.slow
def test_the_compiled_step_is_timed_and_has_the_same_loss(tiny, tmp_path):
    finished = must_run('benchmark', 'train', tiny['seg'], '--compare', '--compile', '--host', '--rounds', 1,
                        '--no-memory', '--json', tmp_path / 'found.json')
    row = json.loads((tmp_path / 'found.json').read_text())['batches'][0]
    assert set(row['sides']['ours']['parts_ms']) == {'data', 'other', 'backward', 'optimizer'}
    assert row['sides']['stock']['parts_ms']['backbone'] > 0 and row['sides']['ours']['parts_ms']['other'] > 0
    assert f"ours was compiled in {row['compiling_s']:.0f} s" in finished.out


def test_only_steps_of_fixed_shapes_can_be_compiled(tiny):
    finished = run_tool('benchmark', 'train', tiny['det'], '--compile', '--rounds', 1, '--no-memory', '--cfg-options',
                        'model.rpn_head.type=Float32RPNHead', 'model.roi_head.type=StandardRoIHead')
    assert '--compile compiles whole steps of fixed shapes' in finished.error


def test_host_time_is_measured_on_a_cpu(tiny):
    finished = run_tool('benchmark', 'train', tiny['det'], '--host', '--device', 'cuda')
    assert '--host measures made images on a CPU' in finished.error


def test_another_step_is_an_error(tiny, monkeypatch):
    cfg = load_config(str(tiny['seg']))
    trainers = training.build_trainers(cfg, 'cpu', compare=True)
    trainers['ours'].model.decode_head.loss_decode.loss_weight *= 1.001
    samples = training.made_samples(trainers['ours'].model, 2, (64, 64))
    with pytest.raises(ValueError, match='loss differs'):
        training.check_steps(trainers, {side: training.pseudo_collate(samples) for side in trainers},
                             dict(sides=dict(stock={}, ours={})))


@pytest.mark.parametrize('task', ['det', 'seg'])
@pytest.mark.parametrize('kind', ['layer_wise', 'stage_wise'])
def test_learning_rates_are_those_of_mmdet_and_mmseg(task, kind, tiny):
    cfg = load_config(str(tiny[task]))
    cfg.optim_wrapper = dict(type='OptimWrapper', constructor='LayerDecayOptimWrapperConstructor',
                             optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
                             paramwise_cfg=dict(decay_type=kind, decay_rate=0.8))
    stock = stock_config(cfg)
    trainers = training.build_trainers(cfg, 'cpu', compare=True)
    found = {}
    for side, settings in (('ours', cfg), ('stock', stock)):
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            wrapper = build_optim_wrapper(trainers[side].model, settings.optim_wrapper)
        names = {parameter: name for name, parameter in trainers[side].model.named_parameters()}
        found[side] = {names[parameter]: (group['lr'], group['weight_decay'])
                       for group in wrapper.optimizer.param_groups for parameter in group['params']}
    assert found['ours'].keys() == found['stock'].keys() and len(set(found['ours'].values())) > 8
    for name, setting in found['ours'].items():
        assert setting == pytest.approx(found['stock'][name], rel=1e-12), name


def test_mistakes_are_one_sentence(tiny):
    finished = run_tool('benchmark', 'train', tiny['seg'], '--batches', 0)
    assert '--batches, --rounds and --size must be at least 1' in finished.error
