"""What happens to a training run from outside: each ends in one sentence that says what and why."""
import multiprocessing
import os
import re
import shutil
import signal
import subprocess

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tool_runs import iterations, kill, launch, must_run, run_tool, tool_command

from convnext_dense.engine import work_dir as work_dirs
from convnext_dense.engine.work_dir import owned_work_dir


@HOOKS.register_module()
class Accident(Hook):
    """After the second iteration, kill a worker of the data loader, or remove the work dir."""

    def __init__(self, kind: str):
        self.kind = kind

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter == 1 and self.kind == 'worker':
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        elif runner.iter == 1:
            shutil.rmtree(runner.work_dir)


def arguments_with(kind, run, tmp_path) -> list:
    config = tmp_path / 'accident.py'
    config.write_text(f'_base_ = {str(run.config)!r}\ncustom_hooks = [dict(type="Accident", kind={kind!r})]\n')
    return [config, '--data-root', run.data_root, '--work-dir', tmp_path / 'run', '--cfg-options',
            'default_hooks.checkpoint.interval=1', 'train_cfg.max_iters=100']


def test_a_worker_of_the_data_loader_is_killed(trained, tmp_path):
    finished = run_tool('train', *arguments_with('worker', trained('seg'), tmp_path), 'train_dataloader.num_workers=1',
                        cwd=tmp_path)
    line = finished.error
    assert 'a process that loads data died (DataLoader worker (pid' in line and 'killed by signal: Killed' in line
    assert 'train_dataloader.num_workers=1' in line and '; continue with: python ' in line


def test_the_work_dir_vanishes(trained, tmp_path):
    line = run_tool('train', *arguments_with('folder', trained('seg'), tmp_path), cwd=tmp_path).error
    assert f'the work dir {tmp_path / "run"} cannot be written (No such file or directory' in line


def test_a_second_run_in_the_same_work_dir(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(work_dirs, 'LOCK_WAIT', 0.1)
    run = trained('seg')
    with owned_work_dir(tmp_path / 'run'):
        finished = run_tool('train', run.config, '--data-root', run.data_root, '--work-dir', 'run', cwd=tmp_path)
    assert 'another training run is writing to run' in finished.error
    assert [file.name for file in (tmp_path / 'run').iterdir()] == ['.lock']


def test_resuming_leaves_an_earlier_run_alone_and_reads_once(trained, tmp_path, monkeypatch):
    """The old run of 8 iterations has iter_8.pth; the new one was stopped after its checkpoint at 4."""
    run, work_dir = trained('seg'), tmp_path / 'run2'
    shutil.copytree(run.work_dir, tmp_path / 'run')
    earlier = {file: file.stat().st_mtime_ns for file in (tmp_path / 'run').rglob('*')}
    arguments = [run.config, '--data-root', run.data_root, '--work-dir', tmp_path / 'run', '--cfg-options']
    refused = run_tool('train', '--exist', 'stop', *arguments, 'train_cfg.max_iters=4', cwd=tmp_path)
    assert 'run has a run already' in refused.error
    said = must_run('train', *arguments, 'train_cfg.max_iters=4', cwd=tmp_path).out
    assert f'this one goes to {work_dir}' in said and (work_dir / 'iter_4.pth').is_file()
    # the dumps are in the log file alone
    log = next(work_dir.glob('*/*.log')).read_text()
    assert '- Config:\n' in log and 'Hooks will be executed' in log and 'Iter(train) [1/4]' in log
    assert '- Config:\n' not in said and 'Hooks will be executed' not in said and 'Iter(train) [1/4]' in said
    assert len(said[:said.index('Iter(train)')].splitlines()) < 25, said
    read, load = [], torch.load

    def counting_load(file, *args, mmap=False, **kwargs):
        read.extend([] if mmap else [str(file)])
        return load(file, *args, mmap=mmap, **kwargs)
    monkeypatch.setattr(torch, 'load', counting_load)
    resumed = must_run('train', *arguments, 'train_cfg.max_iters=6', '--resume', cwd=tmp_path)
    assert iterations(resumed.out) == [(0, 5), (0, 6)]
    assert read == [str(work_dir / 'iter_4.pth')]
    assert earlier == {file: file.stat().st_mtime_ns for file in (tmp_path / 'run').rglob('*')}


@pytest.mark.slow
def test_shared_memory_is_too_small(trained, tmp_path):
    """A /dev/shm of 64 KiB for batches of 90 KiB, with which torch alone would hang."""
    small = ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"', 'sh']
    if shutil.which('unshare') is None or subprocess.run([*small, 'true'], capture_output=True).returncode:
        pytest.skip('a small /dev/shm needs the right to mount one: run as root')
    run, log = trained('seg'), tmp_path / 'log'
    command = tool_command('train', run.config, '--data-root', run.data_root, '--cfg-options',
                           'train_dataloader.num_workers=2')
    process = launch([*small, *command], log, tmp_path)
    try:
        assert process.wait(180) == 2
    finally:
        kill(process)
    assert re.search(r'error: /dev/shm has 0.1 MiB free, but the workers of ShapesSegDataset need about 0.3 MiB '
                     r'\(4 batches of 2\): .*docker run --shm-size', log.read_text().splitlines()[-1])
