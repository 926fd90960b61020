"""The watch at work in `tools/train.py`."""
import re

import pytest
from tool_runs import run_tool


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_a_learning_rate_that_breaks_the_model(task, shapes, trained, tmp_path):
    run = trained(task)
    failed = run_tool('train', run.config, '--data-root', run.data_root, '--work-dir', tmp_path, '--cfg-options',
                      'optim_wrapper.optimizer.lr=1e30', cwd=tmp_path)
    assert failed.code == 2, failed.err[-2000:]
    line = failed.err.splitlines()[-1]
    assert re.match(r'error: iteration \d+: the loss is (nan|inf|-inf), which is not finite', line), line
    file, images = re.search(r'saved as (\S+) \(images (.+?)\)', line).groups()
    assert len(images.split(', ')) == 2 and all(name.startswith(str(run.data_root)) for name in images.split(', '))
    assert (tmp_path / file).is_file()
    assert not list(tmp_path.glob('*.part*')) and not list(tmp_path.glob('epoch_*.pth'))
