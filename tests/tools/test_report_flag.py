"""`tools/test.py --report`: one evaluation, whose metrics the page in the work dir shows."""
import json
import re

import pytest
from tool_runs import must_run


@pytest.mark.parametrize('task, key, name, factor, rounding', [
    ('det', 'coco/bbox_mAP_50', 'box AP50', 100, 0.051), ('seg', 'mIoU', 'mIoU', 1, 0.0051)])
def test_the_page_has_the_metrics_of_the_one_evaluation(task, key, name, factor, rounding, trained, tmp_path):
    run = trained(task)
    tested = tmp_path / 'tested'
    finished = must_run('test', run.config, run.checkpoint, '--data-root', run.data_root, '--work-dir', tested,
                        '--report', '--out', tmp_path / 'mine.pkl', cwd=tmp_path)
    assert f'written: {tested / "report.html"}' in finished.out
    cells = re.sub(r'(<[^>]+>)+', '|', (tested / 'report.html').read_text())
    shown = float(re.search(rf'\|{name}\|(\d+\.\d\d)\|', cells)[1])
    assert shown == pytest.approx(factor * json.loads((tested / 'metrics.json').read_text())[key], abs=rounding)
    assert (tested / 'predictions.npz').is_file() and (tmp_path / 'mine.pkl').is_file()
    assert not (tested / 'report').exists(), 'where the report puts an evaluation of its own'
