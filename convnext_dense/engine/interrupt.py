"""Ctrl-C in a training run: a checkpoint is saved first."""
import signal
import sys
import threading

from mmengine.dist import get_world_size
from mmengine.hooks import Hook

from .hooks import SafeCheckpointHook


class InterruptHook(Hook):
    """The first Ctrl-C stops training after the current iteration, with a checkpoint; a second one stops at once.

    During a validation it stops at once where the iteration is saved already, otherwise after the validation (an
    averaged model is put back only then). Several processes stop at once, since each would stop after another
    iteration; so does a run whose config has no checkpoints.

    Raises:
        KeyboardInterrupt: from a hook point, when the checkpoint is complete.
    """
    priority = 'VERY_LOW'  # after SafeCheckpointHook, which is registered before

    def __init__(self):
        self.asked = False
        self.previous = None  # the handler of SIGINT before this one

    def before_train(self, runner) -> None:
        self.checkpoints = next((hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)), None)
        if self.checkpoints and get_world_size() == 1 and threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, signum, frame) -> None:
        self.asked = True
        self.close()  # a second one finds the handler from before
        print('stopping after this iteration, with a checkpoint; Ctrl-C again stops at once', file=sys.stderr,
              flush=True)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._stop(runner, runner.iter + 1)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.asked and self.checkpoints.saved_at == runner.iter:
            raise KeyboardInterrupt

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._stop(runner, runner.iter)

    def _stop(self, runner, done: int) -> None:
        if not self.asked:
            return
        if self.checkpoints.saved_at != done:
            self.checkpoints.save_between(runner, done)
        raise KeyboardInterrupt

    def close(self) -> None:
        """Put the handler of SIGINT back that was there before the run."""
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)
            self.previous = None
