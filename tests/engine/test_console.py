"""What a training run shows on a terminal."""
import io
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip('mmengine')

from mmengine.hooks import CheckpointHook  # noqa: E402
from mmengine.logging import MessageHub, MMLogger  # noqa: E402

from convnext_dense.engine.console import ConsoleHook, keep_dumps_off_screen  # noqa: E402


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def make_runner(tmp_path, monkeypatch):
    """With a logger on a terminal; ``screen`` and ``bar`` are what was written on stdout and stderr."""
    screen, bar = Terminal(), Terminal()
    monkeypatch.setattr(sys, 'stdout', screen)
    monkeypatch.setattr(sys, 'stderr', bar)
    logger = MMLogger.get_instance(f'console {tmp_path}', log_file=str(tmp_path / 'log'))
    checkpoints = CheckpointHook(save_best='coco/segm_mAP')
    return SimpleNamespace(logger=logger, hooks=[checkpoints], iter=4, max_iters=10, screen=screen, bar=bar,
                           log=tmp_path / 'log', message_hub=MessageHub(str(tmp_path)))


def test_dumps_go_to_the_log_file_until_training_begins(tmp_path, monkeypatch):
    runner = make_runner(tmp_path, monkeypatch)
    keep_dumps_off_screen(runner.logger)
    runner.logger.info('Config:\nmodel = dict()')
    runner.logger.info('paramwise_options -- backbone.0.weight:lr=0.1')
    runner.logger.info('Load checkpoint from a.pth')
    runner.logger.warning('two\nlines')
    shown = runner.screen.getvalue()
    assert 'Config' not in shown and 'paramwise' not in shown
    assert 'Load checkpoint from a.pth' in shown and 'two\nlines' in shown
    hook = ConsoleHook()
    hook.before_train(runner)
    runner.logger.info('category\nAP')
    hook.close()
    shown = runner.screen.getvalue()
    assert f'training iterations 5 to 10; settings and log: {runner.log}' in shown and 'category\nAP' in shown
    assert all(text in runner.log.read_text() for text in ('Config:\nmodel', 'paramwise', 'category\nAP'))


def test_the_bar_has_time_left_loss_and_the_best_metric(tmp_path, monkeypatch):
    runner = make_runner(tmp_path, monkeypatch)
    hook = ConsoleHook()
    hook.before_train(runner)
    for value in (0.31, 0.25):
        runner.message_hub.update_scalar('train/loss', 1.2345)
        hook.after_train_iter(runner, 0)
        hook.after_val_epoch(runner, {'coco/bbox_mAP': 0.9, 'coco/segm_mAP': value})
    runner.logger.info('a log line')
    runner.message_hub.update_scalar('train/loss', 0.5)
    hook.after_train_iter(runner, 0)
    hook.bar.refresh()
    hook.close()
    shown = runner.bar.getvalue().replace('\r', '\n')
    assert 'training, loss 0.5, segm_mAP 0.25 (best 0.31): ' in shown and '7/10 [' in shown and '<' in shown
    assert 'a log line' in runner.screen.getvalue()
    assert any(handler.stream is runner.screen for handler in runner.logger.handlers), 'put back'


def test_no_bar_into_a_file(tmp_path, monkeypatch):
    runner = make_runner(tmp_path, monkeypatch)
    monkeypatch.setattr(sys, 'stderr', io.StringIO())
    hook = ConsoleHook()
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    hook.close()
    assert sys.stderr.getvalue() == ''
