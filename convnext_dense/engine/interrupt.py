"""Ctrl-C, SIGTERM and SIGUSR1 in a training run: a checkpoint is saved first."""
import signal
import sys
import threading

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook

from ..errors import Terminated
from .hooks import SafeCheckpointHook
from .ranks import StopTogether, current_watch


class InterruptHook(Hook):
    """The first signal stops training after the current iteration, with a checkpoint; a second one stops at once.

    SIGTERM and SIGUSR1, with which a scheduler announces that it will end the job, stop several ranks together, one
    iteration later. Ctrl-C does that with one process; several stop at once, since their launcher gives them no time.
    During a validation a single process stops at once where the iteration is saved already, otherwise after the
    validation (an averaged model is put back only then); several stop after it. A run whose config has no checkpoints
    stops at once.

    Raises:
        KeyboardInterrupt: from a hook point, when the checkpoint is complete; `Terminated` for the other two signals.
    """
    priority = 'VERY_LOW'  # after SafeCheckpointHook, which is registered before

    def __init__(self):
        self.asked: type[KeyboardInterrupt] | None = None  # what will be raised
        self.previous = {}  # the signals' handlers before this one

    def before_train(self, runner) -> None:
        self.checkpoints = next((hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)), None)
        self.stop_together = StopTogether()
        if self.checkpoints and threading.current_thread() is threading.main_thread():
            signals = [signal.SIGTERM, signal.SIGUSR1] + [signal.SIGINT] * (get_world_size() == 1)
            self.previous = {number: signal.signal(number, self._ask) for number in signals}

    def _ask(self, signum, frame) -> None:
        self.asked = KeyboardInterrupt if signum == signal.SIGINT else Terminated
        self.close()  # a second one finds the handler from before
        if is_main_process():
            what = 'Ctrl-C' if signum == signal.SIGINT else 'the signal'
            print(f'stopping after this iteration, with a checkpoint; {what} again stops at once', file=sys.stderr,
                  flush=True)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.stop_together(self.asked is not None):
            self._stop(runner, runner.iter + 1)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.asked and get_world_size() == 1 and self.checkpoints.saved_at == runner.iter:
            raise self.asked

    def after_val_epoch(self, runner, metrics=None) -> None:
        if self.asked and get_world_size() == 1:
            self._stop(runner, runner.iter)

    def _stop(self, runner, done: int) -> None:
        runner.finish_validation()
        if self.checkpoints.saved_at != done:
            self.checkpoints.save_between(runner, done)
        runner.checkpoints.wait()
        self.stop_together.wait_for_all()
        if current_watch():
            current_watch().ending = True  # ranks that end now have not died
        raise self.asked or Terminated

    def close(self) -> None:
        """Put the signals' handlers back that were there before the run."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}
