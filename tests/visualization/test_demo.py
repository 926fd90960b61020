"""The demo from end to end, with a few iterations, twice into the same folder."""
import json
import re
import subprocess
import sys

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')


def run_demo(repo_root, work_dir) -> tuple[dict, str]:
    done = subprocess.run([sys.executable, 'tools/demo.py', '--smoke', '--work-dir', str(work_dir)], cwd=repo_root,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((work_dir / 'summary.json').read_text()), (work_dir / 'index.html').read_text()


@pytest.mark.slow
def test_demo_runs_twice_and_gives_the_same_metrics(repo_root, tmp_path):
    first, page = run_demo(repo_root, tmp_path / 'demo')
    assert set(first) == {'det', 'seg', 'seconds'}
    assert set(first['det']) == {'bbox_mAP', 'segm_mAP'} and set(first['seg']) == {'mIoU'}
    metrics = json.loads((tmp_path / 'demo/seg/metrics.json').read_text())
    assert first['seg']['mIoU'] == pytest.approx(metrics['mIoU'] / 100, abs=1e-4)
    assert 0 < first['seg']['mIoU'] < 1
    text = re.sub(r'base64,[^"]*', '', page)
    assert not re.search(r'https?://', text)
    cells = re.sub(r'\|+', '|', re.sub(r'<[^>]+>', '|', text))
    shown = {name: float(re.search(rf'\|{name}\|(\d+\.\d\d)\|', cells)[1]) for name in ('box AP', 'mask AP', 'mIoU')}
    assert shown == pytest.approx({'box AP': 100 * first['det']['bbox_mAP'], 'mask AP': 100 * first['det']['segm_mAP'],
                                   'mIoU': 100 * first['seg']['mIoU']}, abs=0.051)  # three decimals there, two here
    for heading in ('Detection: training', 'Detection: images', 'Segmentation: training', 'Segmentation: images'):
        assert f'|{heading}|' in cells
    data = tmp_path / 'demo/shapes/shapes.json'
    written = data.stat().st_mtime_ns
    second, _ = run_demo(repo_root, tmp_path / 'demo')
    assert data.stat().st_mtime_ns == written  # the data is kept
    assert {**second, 'seconds': 0} == {**first, 'seconds': 0}
