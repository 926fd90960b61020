"""tools/benchmark.py model --compare: the other side is the stock stack, with the same weights and results."""
import json

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, TRANSFORMS
from tool_runs import must_run, run_tool

from convnext_dense.benchmark import compare
from convnext_dense.benchmark import model as benchmark
from convnext_dense.benchmark.compare import check_same
from convnext_dense.benchmark.stock import OfficialConvNeXt, stock_config
from convnext_dense.config import load_config
from convnext_dense.inference.predictor import Detections, Segmentation

RECIPES = ['det/cascade-mask-rcnn_convnext-t-in1k_fpn_4conv1fc-giou_8xb2-amp-ms-crop-3x_coco.py',
           'det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py',
           'seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py']


def types(value):
    """Every `type` in nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in items:
        if key == 'type' and isinstance(item, str):
            yield item
        elif isinstance(item, dict | list | tuple):
            yield from types(item)


@pytest.mark.parametrize('recipe', RECIPES)
def test_stock_config_names_no_class_of_ours(recipe):
    cfg = stock_config(load_config(recipe))
    found = set()
    for part, registry in ((cfg.model, MODELS), (cfg.test_dataloader.dataset.pipeline, TRANSFORMS)):
        with registry.switch_scope_and_registry(cfg.default_scope) as scoped:
            found |= {scoped.get(name) for name in types(part)} - {None}
    assert len(found) > 8
    assert [cls for cls in found if cls.__module__.startswith('convnext_dense')] == [OfficialConvNeXt]


@pytest.mark.parametrize('vectors, options', [('convnext_v1_dense', dict(layer_scale_init_value=1.0)),
                                              ('convnext_v2_stages', dict(use_grn=True))])
def test_official_backbone_gives_the_official_features(vectors, options, reference_dir):
    data = np.load(reference_dir / f'vectors/{vectors}.npz')
    state = {key.removeprefix('state_dict/'): torch.from_numpy(data[key]) for key in data if 'state_dict/' in key}
    arch = dict(depths=[sum(f'stages.{i}.{j}.norm.weight' in state for j in range(9)) for i in range(4)],
                channels=[len(state[f'stages.{i}.0.norm.weight']) for i in range(4)])
    net = OfficialConvNeXt(arch, **options)
    if vectors == 'convnext_v2_stages':  # stage outputs before any norm
        for i in range(4):
            setattr(net, f'norm{i}', torch.nn.Identity())
    state = {key: value for key, value in state.items() if not key.startswith(('head.', 'norm.'))}
    net.load_state_dict({key: value.reshape(net.state_dict()[key].shape) for key, value in state.items()})
    for i, found in enumerate(net(torch.from_numpy(data['input']))):
        expected = torch.from_numpy(data[f'feature_{i}'])
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_both_tasks(task, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, 'use_device', lambda device: None)
    finished = must_run('benchmark', 'model', tiny[task], '--compare', '--size', 64, 96, '--rounds', 1,
                        '--clock', 'cpu', '--json', tmp_path / 'result.json')
    result = json.loads((tmp_path / 'result.json').read_text())
    assert result['parts_ms']['stock'].keys() == result['parts_ms']['ours'].keys() >= {'data', 'backbone'}
    assert result['difference']['pixels'] < 1e-3 and not result['difference'].get('unmatched')
    ratio = result['latency_ms']['stock'] / result['latency_ms']['ours']
    assert f'| {ratio:.2f} |' in next(line for line in finished.out.splitlines() if line.startswith('| whole'))


def test_mixed_precision_is_that_of_both_networks(tiny, monkeypatch):
    seen, build_pair = set(), compare.build_pair

    def build_and_watch(*args):
        pair = build_pair(*args)
        for side, predictor in pair.items():
            predictor.model.backbone.register_forward_hook(lambda *_, side=side: seen.add(
                (side, torch.is_autocast_enabled('cpu') and torch.get_autocast_dtype('cpu'))))
        return pair

    monkeypatch.setattr(benchmark, 'use_device', lambda device: None)
    monkeypatch.setattr(compare, 'build_pair', build_and_watch)
    finished = must_run('benchmark', 'model', tiny['seg'], '--compare', '--size', 64, 96, '--rounds', 1, '--no-memory',
                        '--autocast', 'bfloat16')
    assert seen == {('stock', False), ('stock', torch.bfloat16), ('ours', torch.bfloat16)}  # float32 to compare with
    assert 'of stock from stock in float32: pixels' in finished.out and 'of ours from stock in' in finished.out


def test_results_that_differ_are_an_error():
    labels = np.zeros((10, 10), np.uint8)
    other = labels.copy()
    other[0] = 1
    with pytest.raises(ValueError, match='differ'):
        check_same([Segmentation(labels, 'ab')], [Segmentation(other, 'ab')], exact=True)
    boxes = np.array([[0., 0, 9, 9], [5, 5, 20, 20]], np.float32)
    one = Detections(np.array([0, 1]), boxes, None, np.array([0.9, 0.8]), 'ab', (30, 30))
    swapped = Detections(np.array([1, 0]), boxes[::-1], None, np.array([0.8, 0.9]), 'ab', (30, 30))
    assert check_same([one], [swapped], exact=True)['boxes'] == 0  # the order of equal scores may differ
    for wrong in (Detections(np.array([0, 0]), boxes, None, one.scores, 'ab', (30, 30)),
                  Detections(np.array([0, 1]), boxes + 0.5, None, one.scores, 'ab', (30, 30)),
                  Detections(np.array([0]), boxes[:1], None, one.scores[:1], 'ab', (30, 30))):
        with pytest.raises(ValueError, match='differ'):
            check_same([one], [wrong], exact=True)


def test_options_of_a_comparison_need_one(tiny, monkeypatch):
    monkeypatch.setattr(benchmark, 'use_device', lambda device: None)
    for flags, message in ((['--autocast', 'bfloat16'], '--autocast goes with --compare'),
                           (['--clock', 'cpu'], '--clock goes with --compare or --exported')):
        finished = run_tool('benchmark', 'model', tiny['seg'], *flags)
        assert finished.code == 2 and message in finished.err.splitlines()[-1]
