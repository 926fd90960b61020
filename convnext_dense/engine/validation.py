"""Validation whose metrics are computed while training goes on."""
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook, LoggerHook, ParamSchedulerHook, RuntimeInfoHook
from mmengine.registry import LOOPS
from mmengine.runner import ValLoop
from mmengine.runner.loops import _parse_losses

from ..errors import UserError
from .console import ConsoleHook
from .hooks import SafeCheckpointHook
from .interrupt import InterruptHook
from .loops import ResumableEpochLoop, ResumableIterLoop
from .training_watch import WatchTrainingHook

RECORDING = (RuntimeInfoHook, LoggerHook, CheckpointHook, ConsoleHook)  # hooks that get the metrics when they are there
WITHOUT_METRICS = (EMAHook, WatchTrainingHook, InterruptHook)  # those whose work after a validation needs none


@LOOPS.register_module()
class BackgroundValLoop(ValLoop):
    """mmengine's ValLoop, which lets training go on while rank 0 computes the metrics.

    Every rank sends rank 0 what it needs (`FastCocoMetric.collect`), and a process there computes. When it is done, the
    hooks that record metrics and choose the best checkpoint are called as they would have been after the validation:
    ``runner.iter`` and ``runner.epoch`` are those of the validation, and the best checkpoint is that iteration's. No
    checkpoint is written and no other validation begins before that, so that a run that is resumed has either all of a
    validation or none of it. What goes wrong there is raised by the next iteration, or where it is waited for.

    Training waits for the metrics where it depends on them (early stopping, ReduceOnPlateauLR, hooks that are not known
    here), with other metrics than ours, where the best checkpoint is chosen and none was written at that iteration,
    after the last iteration, and where processes cannot be forked (anything but Linux).
    """

    pending: '_Metrics | None' = None  # of the last validation, until all ranks have them
    landing = False  # whether hooks are called for a validation in the past

    def run(self) -> dict | None:
        """Validate; returns the metrics, or None where they come later."""
        self.finish()
        if not self._may_go_on():
            return super().run()
        runner = self.runner
        runner.call_hook('before_val')
        runner.call_hook('before_val_epoch')
        runner.model.eval()
        self.val_loss.clear()
        for number, data_batch in enumerate(self.dataloader):
            self.run_iter(number, data_batch)
        losses = _parse_losses(self.val_loss, 'val') if self.val_loss else {}
        parts = [metric.collect(len(self.dataloader.dataset)) for metric in self.evaluator.metrics]
        loop = runner.train_loop
        self.pending = _Metrics(parts, losses, (loop._epoch, loop._iter, loop.in_epoch))
        if is_main_process():
            self.pending.start()
        for hook in runner.hooks:
            if not isinstance(hook, RECORDING):
                hook.after_val_epoch(runner, None)
        runner.call_hook('after_val')
        return None

    def _may_go_on(self) -> bool:
        """Whether training does not depend on the metrics; the same on every rank."""
        runner, loop = self.runner, self.runner._train_loop
        if sys.platform != 'linux' or not isinstance(loop, (ResumableEpochLoop, ResumableIterLoop)) \
                or loop.iter >= loop.max_iters:
            return False
        schedulers = runner.param_schedulers or []
        groups = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
        if any(getattr(scheduler, 'need_val_args', False) for group in groups for scheduler in group):
            return False
        return all(getattr(metric, 'runs_beside', False) for metric in self.evaluator.metrics) \
            and all(_is_independent(hook, loop.iter) for hook in runner.hooks)

    def poll(self) -> None:
        """Call rank 0's hooks, if the metrics have been computed since."""
        if self.pending is not None and self.pending.is_computed():
            self._land(self.pending.result())

    def finish(self) -> None:
        """Wait for the metrics of the last validation, and call the hooks; all ranks do that at the same iteration."""
        if self.pending is None:
            return
        metrics = [self.pending.result() if is_main_process() else None]
        broadcast_object_list(metrics)
        if not self.pending.landed:
            self._land(metrics[0])
        self.pending = None

    def close(self) -> None:
        """End a computation that nobody waits for any more, after an error in the run."""
        if self.pending is not None and self.pending.process is not None:
            self.pending.process.kill()

    def _land(self, metrics: dict) -> None:
        """Call the hooks that record metrics as if training had not gone on."""
        pending, runner = self.pending, self.runner
        pending.landed = True
        epoch, iteration, _ = pending.position
        runner.logger.info(f'validation after iteration {iteration} (epoch {epoch}): its metrics took '
                           f'{pending.seconds:.1f} s, beside training up to iteration {runner.iter}')
        with self._at(pending.position):
            for hook in runner.hooks:
                if isinstance(hook, RECORDING):
                    hook.after_val_epoch(runner, metrics)

    @contextmanager
    def _at(self, position: tuple[int, int, int]) -> Iterator[None]:
        """Let the train loop say that it is where it was."""
        loop = self.runner.train_loop
        now = loop._epoch, loop._iter, loop.in_epoch
        loop._epoch, loop._iter, loop.in_epoch = position
        self.landing = True
        try:
            yield
        finally:
            loop._epoch, loop._iter, loop.in_epoch = now
            self.landing = False


class MetricsHook(Hook):
    """Gives the hooks of a run the metrics of a `BackgroundValLoop`."""
    priority = 'VERY_HIGH'  # before anything is saved

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if isinstance(runner._val_loop, BackgroundValLoop):
            runner._val_loop.poll()

    def after_train(self, runner) -> None:
        runner.finish_validation()


class _Metrics:
    """The metrics of one validation, which a process beside rank 0's computes.

    A thread would share Python's lock with the training loop. The process is forked, as workers of a data loader are:
    nothing is copied until it is written to, and it does not touch the GPU.

    Args:
        parts: functions that return metrics.
        losses: that the model returned in the validation.
        position: epoch, iteration and iteration in the epoch of the train loop.
    """

    def __init__(self, parts: list[Callable[[], dict]], losses: dict, position: tuple[int, int, int]):
        self.parts, self.metrics, self.position = parts, losses, position
        self.landed = False
        self.seconds = 0.0
        self.process = None

    def start(self) -> None:
        context = multiprocessing.get_context('fork')
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=compute, args=(self.parts, sender), name='metrics', daemon=True)
        self.process.start()
        sender.close()

    def is_computed(self) -> bool:
        """Whether there are metrics, or an error, that no hook has got."""
        return not self.landed and self.process is not None and self.receiver.poll()

    def result(self) -> dict:
        """Wait for the metrics; raises what went wrong.

        Raises:
            UserError: of the computation, or the process was killed.
        """
        if self.process is not None:
            try:
                found, self.seconds = self.receiver.recv()
            except EOFError:
                self.process.join()
                raise UserError(f'the process that computes the metrics after iteration {self.position[1]} was ended '
                                f'from outside (exit status {self.process.exitcode}): make sure that there is enough '
                                'memory, and continue with --resume, which repeats the validation') from None
            self.process.join()
            self.process = None
            if isinstance(found, BaseException):
                raise found
            self.metrics = {**self.metrics, **found}
        return self.metrics


def compute(parts: list[Callable[[], dict]], sender) -> None:
    """Send metrics, or the error, and the seconds that they took; ends when the process of the run has ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the run decides; it waits for the metrics
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    start, metrics = time.perf_counter(), {}
    try:
        for part in parts:
            found = part()
            if found.keys() & metrics.keys():
                raise ValueError(f'several metrics are called {min(found.keys() & metrics.keys())}: give the '
                                 'evaluators different prefixes')
            metrics |= found
    except UserError as error:
        metrics = UserError(str(error))
    except BaseException:  # as text, since not every exception can be sent
        metrics = RuntimeError(f'the metrics could not be computed:\n{traceback.format_exc()}')
    sender.send((metrics, time.perf_counter() - start))


def _end_with(run: int) -> None:
    """Leave with the process of the run, whose lock on the work dir this one has, too."""
    while os.getppid() == run:
        time.sleep(1)
    os._exit(1)


def _is_independent(hook: Hook, iteration: int) -> bool:
    """Whether a hook can do its work after a validation without the metrics, or when they come."""
    if isinstance(hook, CheckpointHook):  # the best checkpoint is the one in memory
        return hook.save_best is None or isinstance(hook, SafeCheckpointHook) and hook.saved_at == iteration
    return type(hook).after_val_epoch is Hook.after_val_epoch \
        or isinstance(hook, (*RECORDING, *WITHOUT_METRICS, ParamSchedulerHook))
