"""Hooks that end a training process at a chosen moment, as an outside event would; for test_kill_and_resume.py."""
import os
import signal
import time

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from convnext_dense.engine import checkpoint_writer, hooks, validation


def die(how: str) -> None:
    os.kill(os.getpid(), getattr(signal, how))


@HOOKS.register_module()
class KillAt(Hook):
    """Kill the process.

    Args:
        moment: 'train' (in the middle of an iteration's hooks), 'val', 'writing' (half of a checkpoint is on disk),
            'pointer' (the checkpoint is complete, the file last_checkpoint is not yet written) or 'metrics' (those of a
            validation are being computed, training is two iterations further).
        number: at the how-manieth time, from 1, that moment comes.
        how: name of the signal.
    """
    priority = 'VERY_HIGH'

    def __init__(self, moment: str, number: int, how: str = 'SIGKILL'):
        self.moment, self.number, self.how = moment, number, how

    def _passes(self, moment: str) -> bool:
        self.number -= moment == self.moment
        return moment == self.moment and self.number == 0

    def before_train(self, runner) -> None:
        save, point, hook = checkpoint_writer.save, hooks._point_to, self

        def save_half(checkpoint, path):
            save(checkpoint, path)
            if hook._passes('writing'):
                os.truncate(path, path.stat().st_size // 2)
                die(hook.how)

        def die_or_point(*args):
            if hook._passes('pointer'):
                die(hook.how)
            point(*args)

        def wait_and_compute(parts, sender):
            compute([lambda: time.sleep(60) or {}] * (hook.moment == 'metrics') + parts, sender)

        compute = validation.compute
        checkpoint_writer.save, hooks._point_to, validation.compute = save_half, die_or_point, wait_and_compute

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        metrics = getattr(runner.val_loop, 'pending', None)
        if self._passes('train') or metrics and runner.iter == metrics.position[1] + 1 and self._passes('metrics'):
            die(self.how)

    def after_val_iter(self, *args, **kwargs) -> None:
        if self._passes('val'):
            die(self.how)
