"""Whatever ends a training run and whenever, the last good checkpoint is there and ``--resume`` continues from it."""
import re
import shutil
import subprocess
import sys

import pytest
from tool_runs import (
    CHECKPOINTS,
    TOOL_TESTS,
    iterations,
    kill,
    launch,
    must_run,
    run_command,
    run_tool,
    tool_command,
)

from convnext_dense.checkpoints import read_checkpoint

# the tiny recipes with a checkpoint after iteration 4 and 8 (seg) or epoch 1 and 2 of four iterations (det)
LAST = {'det': (2, 4), 'seg': (0, 8)}
FIRST_AFTER_HALF = {'det': (2, 1), 'seg': (0, 5)}
MOMENTS = {'mid-epoch': ('train', 6), 'while the second checkpoint is written': ('writing', 2),
           'between the second checkpoint and its pointer': ('pointer', 2), 'during the second validation': ('val', 3),
           'while metrics are computed': ('metrics', 1)}
KEEP_ONE = ['default_hooks.checkpoint.max_keep_ckpts=1', 'default_hooks.checkpoint.save_best=None']


def train_to_the_kill(run, work_dir, log, moment, number, how='SIGKILL') -> tuple[int, list]:
    """Start a run that kills itself; returns its exit status and the arguments to resume with."""
    config = work_dir.parent / 'killed.py'
    config.write_text(f'_base_ = {str(run.config)!r}\n'
                      "custom_imports = dict(imports=['convnext_dense', 'kill_moments'])\n"
                      f"custom_hooks = [dict(type='KillAt', moment={moment!r}, number={number}, how={how!r})]\n")
    arguments = ['--data-root', run.data_root, '--work-dir', work_dir, '--cfg-options', *KEEP_ONE]
    process = launch(tool_command('train', config, *arguments), log, work_dir.parent, PYTHONPATH=str(TOOL_TESTS))
    try:
        code = process.wait(300)
    finally:
        kill(process)
    return code, [run.config, *arguments]


@pytest.mark.slow
@pytest.mark.parametrize('moment', MOMENTS)
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_sigkill(task, moment, trained, tmp_path):
    """With one checkpoint kept, too; the resumed run ends with the weights of one that nobody killed."""
    run, work_dir, log = trained(task), tmp_path / 'run', tmp_path / 'log'
    code, arguments = train_to_the_kill(run, work_dir, log, *MOMENTS[moment])
    assert code == -9, log.read_text()[-3000:]
    half, last = (work_dir / name for name in CHECKPOINTS[task])
    assert half.exists() or last.exists(), 'no checkpoint survived'
    survivor = last if last.exists() else half
    read_checkpoint(str(survivor))  # whole
    resumed = must_run('train', *arguments, '--resume', cwd=tmp_path)
    went_on = iterations(resumed.out)
    if survivor == half:
        assert went_on[0] == FIRST_AFTER_HALF[task] and went_on[-1] == LAST[task]
    assert read_checkpoint(str(last))['meta']['iter'] == 8
    assert not list(work_dir.glob('*.part*'))
    print(f'{task}, killed {moment}: continued from {survivor.name}, iterations {went_on}')


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """Weights, their average, optimizer, schedules and best checkpoint are those of a run that was never stopped."""
    command = [sys.executable, TOOL_TESTS / 'random_kills.py', '--task', 'det', '--workers', 2, '--kills', 2]
    output = run_command(command, tmp_path / 'log', tmp_path)
    print(output)
    assert 'equal' in output and 'DIFFERENT' not in output


@pytest.mark.slow
def test_a_scheduler_gets_a_checkpoint_and_is_told_how_to_continue(trained, tmp_path):
    run, work_dir, log = trained('seg'), tmp_path / 'run', tmp_path / 'log'
    code, arguments = train_to_the_kill(run, work_dir, log, 'train', 6, 'SIGTERM')
    assert code == 143, log.read_text()[-3000:]
    text = log.read_text()
    assert 'Traceback' not in text
    assert re.fullmatch(r'terminated; continue with: python .+ --resume', text.splitlines()[-1])
    resumed = must_run('train', *arguments, '--resume', cwd=tmp_path)
    assert iterations(resumed.out) == [(0, 7), (0, 8)]


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own with a few hundred KiB; needs the right to mount."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', str(folder)], capture_output=True,
                             text=True) if shutil.which('mount') else None
    if mounted is None or mounted.returncode:
        pytest.skip('a full disk needs the right to mount a tmpfs: run as root')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


@pytest.mark.slow
def test_full_disk_while_a_checkpoint_is_written(trained, small_disk, tmp_path):
    """The second checkpoint does not fit: one sentence, the first is whole, and with more space it can be resumed."""
    run = trained('seg')
    size = run.checkpoint.stat().st_size
    work_dir, filler = small_disk / 'run', small_disk / 'filler'
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - round(1.6 * size)))  # room for one and a half
    arguments = [run.config, '--data-root', run.data_root, '--work-dir', work_dir, '--cfg-options', *KEEP_ONE]
    failed = run_tool('train', *arguments, cwd=tmp_path)
    assert failed.code == 2, failed.err[-3000:]
    assert re.search(r'error: the disk is full \(.+\); what was complete before is untouched: free some space; '
                     r'continue with: python .+ --resume', failed.err), failed.err[-2000:]
    first, last = (work_dir / name for name in CHECKPOINTS['seg'])
    assert first.exists() and not last.exists() and not list(work_dir.glob('*.part*'))
    read_checkpoint(str(first))
    filler.unlink()
    resumed = must_run('train', *arguments, '--resume', cwd=tmp_path)
    assert iterations(resumed.out)[0] == FIRST_AFTER_HALF['seg']
    assert read_checkpoint(str(last))['meta']['iter'] == 8
