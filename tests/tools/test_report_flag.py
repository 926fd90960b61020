"""`tools/test.py --report`: the page lies in the work dir and shows the figures of metrics.json."""
import json

import pytest
from tool_runs import must_run


@pytest.mark.parametrize('task, key, factor', [('det', 'coco/bbox_mAP_50', 100), ('seg', 'mIoU', 1)])
def test_the_page_has_the_figures_of_the_evaluation(task, key, factor, trained, tmp_path):
    run = trained(task)
    finished = must_run('test', run.config, run.checkpoint, '--data-root', run.data_root, '--work-dir',
                        tmp_path / 'tested', '--report', cwd=tmp_path)
    assert f'written: {tmp_path / "tested/report.html"}' in finished.out
    page = (tmp_path / 'tested/report.html').read_text()
    figure = json.loads((tmp_path / 'tested/metrics.json').read_text())[key]
    assert any(f'{round(factor * figure + step, 1)}' in page for step in (-0.1, 0, 0.1))  # rounded twice
    assert (tmp_path / 'tested/predictions.pkl').is_file()
