"""tools/benchmark.py loop: both sides evaluate the same images, and every part is charged."""
import json
import re

import pytest
from tool_runs import CONFIGS, must_run, run_tool

from convnext_dense.benchmark import loop


@pytest.fixture(autouse=True)
def any_device(monkeypatch):
    monkeypatch.setattr(loop, 'use_device', lambda device: None)


@pytest.mark.slow
def test_both_sides_evaluate_all_images(make_shapes, tmp_path):
    data = make_shapes(train=2, val=3)
    evaluated = {'stock': [], 'ours': []}

    class Counted(loop.Loop):
        def image(self, index):
            metric = type(self.evaluator.metrics[0])
            evaluated['stock' if metric.__module__.startswith('mmdet.') else 'ours'].append(index)
            super().image(index)
            assert len(self.evaluator.metrics[0].results[-1][1]['scores']) > 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, 'Loop', Counted)
        finished = must_run('benchmark', 'loop', CONFIGS['det'], '--data-root', data / 'coco', '--images', 7, '--block',
                            3, '--clock', 'cpu', '--json', tmp_path / 'result.json')
    assert evaluated['stock'] == evaluated['ours'] == [0, *range(7)]  # the first warms up
    result = json.loads((tmp_path / 'result.json').read_text())
    assert len(result['ratios']) == 3 and result['metrics']['stock'] == result['metrics']['ours'] != {}
    for seconds in result['seconds'].values():
        assert seconds.keys() == loop.PARTS.keys() and min(seconds.values()) > 0
    whole = [sum(result['seconds'][side].values()) for side in ('stock', 'ours')]
    row = next(line for line in finished.out.splitlines() if line.startswith('| whole'))
    assert [float(number) for number in re.findall(r'[\d.]+', row)][:2] == [round(seconds, 2) for seconds in whole]


def test_only_detectors_on_coco():
    finished = run_tool('benchmark', 'loop', CONFIGS['seg'])
    assert finished.code == 2 and 'needs a detector that is evaluated by FastCocoMetric' in finished.err
