"""Ctrl-C while training: status 130, one line that says how to continue, and that command works."""
import os
import re
import shlex
import signal
import sys

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tool_runs import (
    CHECKPOINTS,
    ROOT,
    differing,
    free_port,
    iterations,
    kill,
    launch,
    must_run,
    run_command,
    run_tool,
    tool_command,
    wait_for,
)

from convnext_dense.checkpoints import read_checkpoint
from convnext_dense.cli.running import is_interrupt, resume_command
from convnext_dense.errors import find_cause


@pytest.mark.slow
def test_interrupted_training_says_how_to_continue(trained, tmp_path):
    run = trained('seg')
    log = tmp_path / 'log'
    arguments = [run.config, '--data-root', run.data_root, '--work-dir', tmp_path / 'work dir',
                 '--cfg-options', 'default_hooks.checkpoint.interval=1', 'train_cfg.val_interval=1000']
    # as under nohup or in a background shell, where a process starts with SIGINT ignored
    ignoring = ['sh', '-c', 'trap "" INT; exec "$@"', 'sh']
    process = launch([*ignoring, *tool_command('train', *arguments, 'train_cfg.max_iters=100000')], log, tmp_path)
    try:
        wait_for(r'Saving checkpoint at 3 iterations', log, process)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(120) == 130
    finally:
        kill(process)
    text = log.read_text()
    assert 'Traceback' not in text
    last = text.splitlines()[-1]
    told = re.fullmatch(r'interrupted; continue with: python (.+)', last)
    assert told, last
    words = shlex.split(told[1])
    assert words[1:] == [*map(str, arguments), 'train_cfg.max_iters=100000', '--resume']

    done = iterations(text)[-1][1]
    finished = must_run('train', *words[1:-1], f'train_cfg.max_iters={done + 2}', '--resume', cwd=tmp_path)
    assert iterations(finished.out)[-1] == (0, done + 2)
    assert iterations(finished.out)[0][1] in (done, done + 1)  # the last iteration's checkpoint may be missing


@HOOKS.register_module()
class CtrlCAt(Hook):
    """Send this process SIGINT in the n-th training iteration or validation iteration, once or twice."""

    def __init__(self, moment: str, number: int, times: int = 1):
        self.moment, self.number, self.times = moment, number, times

    def _count(self, moment: str) -> None:
        self.number -= moment == self.moment
        if moment == self.moment and self.number == 0:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)

    def after_train_iter(self, *args, **kwargs) -> None:
        self._count('train')

    def after_val_iter(self, *args, **kwargs) -> None:
        self._count('val')


def interrupted(run, tmp_path, *options, **when):
    """A run that gets Ctrl-C; returns how it ended and the arguments to resume with."""
    config = tmp_path / 'interrupted.py'
    config.write_text(f'_base_ = {str(run.config)!r}\ncustom_hooks = [dict(type="CtrlCAt", **{when!r})]\n')
    arguments = ['--data-root', run.data_root, '--work-dir', tmp_path / 'run', *options]
    return run_tool('train', config, *arguments, cwd=tmp_path), [run.config, *arguments]


@pytest.mark.parametrize('task, epoch, done', [
    ('det', 1, 2), pytest.param('seg', 0, 6, marks=pytest.mark.slow)])
def test_ctrl_c_saves_first_and_the_rest_is_exact(task, epoch, done, trained, tmp_path):
    """In iteration 6 of 8, in the middle of the second epoch: the end is that of the run that nobody interrupted."""
    run, saved = trained(task), tmp_path / 'run/interrupted.pth'
    ended, arguments = interrupted(run, tmp_path, moment='train', number=6)
    assert ended.code == 130, ended.err
    assert 'stopping after this iteration, with a checkpoint; Ctrl-C again stops at once' in ended.err
    meta = read_checkpoint(saved)['meta']
    assert (meta['iter'], meta['epoch'], meta['done_in_epoch']) == (6, epoch, done)
    resumed = must_run('train', *arguments, '--resume', cwd=tmp_path)
    assert str(saved) in resumed.out and len(iterations(resumed.out)) == 2
    assert differing(run.checkpoint, tmp_path / 'run' / CHECKPOINTS[task][1]) == []
    assert not saved.exists(), 'the next checkpoint replaces it'


def test_a_second_ctrl_c_stops_at_once(trained, tmp_path):
    ended, _ = interrupted(trained('seg'), tmp_path, moment='train', number=2, times=2)
    assert ended.code == 130 and 'interrupted; continue with' in ended.err
    assert not list((tmp_path / 'run').glob('*.pth'))


@pytest.mark.parametrize('interval, saved', [
    pytest.param(4, 'iter_4.pth', marks=pytest.mark.slow), (100, 'interrupted.pth')])
def test_ctrl_c_in_a_validation(interval, saved, trained, tmp_path):
    """The iteration is saved already, or is saved when the validation has ended."""
    options = ['--cfg-options', f'default_hooks.checkpoint.interval={interval}',
               'default_hooks.checkpoint.save_best=None']
    ended, _ = interrupted(trained('seg'), tmp_path, *options, moment='val', number=1)
    assert ended.code == 130, ended.err
    assert [file.name for file in (tmp_path / 'run').glob('*.pth')] == [saved]
    assert read_checkpoint(tmp_path / 'run' / saved)['meta']['iter'] == 4
    assert ('mIoU' in ended.out) == (saved == 'interrupted.pth')


@pytest.mark.parametrize('argv, expected', [
    (['tools/train.py', 'a b.py'], "python tools/train.py 'a b.py' --resume"),
    (['convnext-dense train', 'c.py', '--resume'], 'convnext-dense train c.py --resume'),
    (['t.py', 'c.py', '--resume', 'a.pth', '--amp', 'off'], 'python t.py c.py --amp off --resume'),
    (['t.py', 'c.py', '--resume=a.pth'], 'python t.py c.py --resume'),
    (['/my tools/dist_train.sh', 'c.py', '2'], "'/my tools/dist_train.sh' c.py 2 --resume"),
])
def test_the_line_is_a_command(argv, expected):
    assert resume_command(argv) == expected


def test_interrupt_is_recognised_behind_another_error():
    try:
        try:
            raise KeyboardInterrupt
        except:  # noqa: E722  (as mmengine's Config.pretty_text does)
            raise SyntaxError('Failed to format the config file')  # noqa: B904
    except SyntaxError as error:
        assert isinstance(find_cause(error, is_interrupt), KeyboardInterrupt)
    assert find_cause(SyntaxError('Failed to format the config file'), is_interrupt) is None


@pytest.mark.slow
def test_interrupted_ranks_say_once_how_to_continue(trained, tmp_path):
    """Ctrl-C reaches the launcher and both ranks; the printed command starts both again."""
    run, log = trained('seg'), tmp_path / 'log'
    arguments = [run.config, 2, '--data-root', run.data_root, '--work-dir', tmp_path / 'run', '--cfg-options',
                 'default_hooks.checkpoint.interval=1', 'train_cfg.val_interval=1000']
    script, port = ROOT / 'tools/dist_train.sh', free_port()
    process = launch([script, *arguments, 'train_cfg.max_iters=100000'], log, tmp_path, PORT=port)
    try:
        wait_for(r'Saving checkpoint at 3 iterations', log, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(120) != 0
    finally:
        kill(process)
    told = re.findall(r'^interrupted; continue with: (.+)$', log.read_text(), re.M)
    assert len(told) == 1, log.read_text()[-3000:]
    words = shlex.split(told[0])
    assert words == ['env', f'PORT={port}', f'PYTHON={sys.executable}', *map(str, [script, *arguments]),
                     'train_cfg.max_iters=100000', '--resume']
    done = iterations(log.read_text())[-1][1]
    words[-2] = f'train_cfg.max_iters={done + 2}'
    again = run_command(words, tmp_path / 'again', tmp_path)
    assert iterations(again)[-1] == (0, done + 2) and iterations(again)[0][1] in (done, done + 1)
