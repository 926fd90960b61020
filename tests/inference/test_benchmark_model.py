"""tools/benchmark.py model: every second is charged to one part, and both tasks can be measured."""
import json
from types import SimpleNamespace

import pytest
import torch
from tool_runs import must_run, run_tool
from torch import nn

from convnext_dense.benchmark import model as benchmark
from convnext_dense.benchmark.stopwatch import Stopwatch, prediction_methods
from convnext_dense.benchmark.timing import CLOCKS


class Clock:
    """A clock that only work moves."""

    def __init__(self):
        self.now = 0.0

    def work(self, seconds: float) -> None:
        self.now += seconds


def test_parts_do_not_count_the_parts_that_they_call(monkeypatch):
    clock = Clock()
    monkeypatch.setitem(CLOCKS, 'wall', lambda: clock.now)

    class Head(nn.Module):
        def predict_by_feat(self):
            clock.work(3)

    class RoIHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.bbox_head, self.mask_head = nn.ModuleList([Head(), Head()]), Head()

        def predict(self):
            clock.work(5)
            for head in (*self.bbox_head, self.mask_head):
                head.predict_by_feat()

    class Backbone(nn.Module):
        def forward(self, x):
            clock.work(7)
            return x

    model = nn.Module()
    model.backbone, model.roi_head, model.data_preprocessor = Backbone(), RoIHead(), nn.Identity()
    predictor = SimpleNamespace(model=model, load=lambda: clock.work(11), result=lambda: clock.work(13))

    def whole():
        predictor.load()
        model.data_preprocessor(torch.zeros(1))
        clock.work(17)
        model.backbone(torch.zeros(1))
        model.roi_head.predict()
        predictor.result()

    own = model.backbone.forward
    with Stopwatch(prediction_methods(predictor)) as watch:
        watch.call('other', whole)
    assert dict(watch.seconds) == {'data': 11, 'backbone': 7, 'RoI heads': 5, 'post-processing': 13 + 3 * 3,
                                   'other': 17}
    assert clock.now == sum(watch.seconds.values())
    assert model.backbone.forward == own and 'predict' not in vars(model.roi_head)
    assert not hasattr(predictor, 'load')  # the wrappers are gone (of a namespace, with what they wrapped)


@pytest.mark.parametrize('task, parts', [
    ('det', {'data', 'backbone', 'neck', 'RPN', 'RoI heads', 'post-processing', 'other'}),
    ('seg', {'data', 'backbone', 'decode head', 'post-processing', 'other'})])
def test_both_tasks(task, parts, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, 'use_device', lambda device: None)
    finished = must_run('benchmark', 'model', tiny[task], '--size', 64, 96, '--rounds', 1, '--batch', 2,
                        '--json', tmp_path / 'result.json')
    result = json.loads((tmp_path / 'result.json').read_text())
    assert set(result['parts_ms']) == parts and all(value > 0 for value in result['parts_ms'].values())
    assert result['network_input'] == {'det': [3, 43, 64], 'seg': [3, 64, 96]}[task]  # det resizes to fit 64x64
    assert result['detections'] == {'det': [5, 5], 'seg': None}[task]
    assert result['peak_memory_mb'] > 0 and 'random weights' in finished.out


def test_mistakes_are_one_sentence(tiny, images, monkeypatch):
    monkeypatch.setattr(benchmark, 'use_device', lambda device: None)
    for arguments, expected in ((['--batch', 0], 'must be at least 1'),
                                (['--images', images[0].parent, '--batch', 2], '2 sizes')):
        finished = run_tool('benchmark', 'model', tiny['seg'], *arguments)
        assert finished.code == 2 and expected in finished.err.splitlines()[-1]
