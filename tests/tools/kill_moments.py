"""Hooks that end a training process at a chosen moment, as an outside event would; for test_kill_and_resume.py."""
import os
import signal
from pathlib import Path

from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from convnext_dense.engine.runner import DenseRunner


def die(how: str) -> None:
    os.kill(os.getpid(), getattr(signal, how))


@HOOKS.register_module()
class KillAt(Hook):
    """Kill the process.

    Args:
        moment: 'train' (in the middle of an iteration's hooks), 'val', 'writing' (half of a checkpoint is on disk) or
            'pointer' (the checkpoint is complete, the file last_checkpoint is not yet written).
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
        put, save, hook = LocalBackend.put, DenseRunner.save_checkpoint, self

        def put_half(self, obj, filepath):
            if str(filepath).endswith('.part.pth') and hook._passes('writing'):
                Path(filepath).write_bytes(obj[:len(obj) // 2])
                die(hook.how)
            put(self, obj, filepath)

        def save_and_die(self, *args, **kwargs):
            save(self, *args, **kwargs)
            if hook._passes('pointer'):
                die(hook.how)

        LocalBackend.put, DenseRunner.save_checkpoint = put_half, save_and_die

    def after_train_iter(self, *args, **kwargs) -> None:
        if self._passes('train'):
            die(self.how)

    def after_val_iter(self, *args, **kwargs) -> None:
        if self._passes('val'):
            die(self.how)
