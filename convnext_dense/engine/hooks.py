"""Training options that a config switches on by one entry of ``custom_hooks``, and checkpoints that resume exactly."""
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook, LoggerHook, RuntimeInfoHook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ..errors import UserError
from ..mm.device import allow_graphs
from ..mm.fallbacks import unwrap_model
from ..mm.transfer import HostCopy
from ..models.compiling import DENSE_PARTS, compile_parts, graphs_made
from ..utils.files import atomic_write
from .checkpoint_writer import CheckpointWriter
from .compiled_losses import compile_losses
from .loops import position
from .ranks import StopTogether
from .work_dir import INTERRUPTED, begin_run, last_validation, note_validation

MOST_GRAPHS = 64  # of a function that CompileHook compiles: sizes of images


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile the training step with torch.compile before training; checkpoints stay as they are.

    The whole of it, from images to losses, where shapes do not depend on data (`compile_losses`): our detectors'
    recipes and segmentors. Backbone, neck and dense heads (`DENSE_PARTS`) of other models.

    Every new size of a batch is compiled again, which takes minutes: use images of one size (segmentation crops), or
    pad batches to a few sizes (`BatchPadToSizes`). The log says when something was compiled.

    Args:
        parts: attributes of the model to compile in place of the whole step. Gradients of a graph are complete all at
            once: with parts, DistributedDataParallel sends those of one while those of the next are computed.
        **options: of torch.compile: ``mode='reduce-overhead'`` replays the compiled parts as CUDA graphs, ``dynamic``,
            ``backend``.
    """

    def __init__(self, parts: Sequence[str] | None = None, **options):
        self.parts, self.options = parts, options

    def before_train(self, runner) -> None:
        model = unwrap_model(runner.model)
        allow_graphs(MOST_GRAPHS)
        if self.parts is None and compile_losses(model, **self.options):
            compiled = 'the whole step'
        else:
            compiled = ', '.join(compile_parts(model, self.parts or DENSE_PARTS, **self.options))
        print_log(f'torch.compile: {compiled}; the first iteration of each size takes long', logger='current')
        self.graphs = graphs_made()

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        torch.compiler.cudagraph_mark_step_begin()
        self.start = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        made, self.graphs = graphs_made() - self.graphs, graphs_made()
        if made:
            print_log(f'torch.compile made {made} graphs in iteration {runner.iter + 1}, which took '
                      f'{time.perf_counter() - self.start:.1f} s; {self.graphs} so far', logger='current')


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the whole model in channels-last memory: neck and heads too (our backbone always is).

    `DenseRunner` converts the model before it is wrapped for distributed training, whose gradient buckets take the
    strides that the parameters have then. Under mmengine's own Runner the hook converts an unwrapped model only.
    """

    def before_train(self, runner) -> None:
        if not is_model_wrapper(runner.model):
            runner.model.to(memory_format=torch.channels_last)


@HOOKS.register_module()
class LateRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's RuntimeInfoHook, which does not wait for the losses of each step.

    They go to the host in one transfer a step and are recorded when they have come, at the latest when the logger
    prints, an epoch ends, or a checkpoint is written. Our Runner uses it wherever a config says ``RuntimeInfoHook``.
    """

    def __init__(self):
        super().__init__()
        self.pending: deque[HostCopy] = deque()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if outputs is not None:
            self.pending.append(HostCopy(outputs))
        last = self.end_of_epoch(runner.train_dataloader, batch_idx) or self.is_last_train_iter(runner)
        prints = any(isinstance(hook, LoggerHook) and self.every_n_inner_iters(batch_idx, hook.interval)
                     for hook in runner.hooks)
        self.record(runner, wait=last or prints)

    def record(self, runner, wait: bool = True) -> None:
        """Give the message hub what has come, or everything."""
        while self.pending and (wait or self.pending[0].is_ready()):
            for key, value in self.pending.popleft().numbers().items():
                runner.message_hub.update_scalar(f'train/{key}', value)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, with these differences. Our Runner uses it wherever a config says ``CheckpointHook``.

    - An old checkpoint is removed after the new one is written, not before. A run that is killed, or finds the disk
      full, while it writes then still has the one before, also with ``max_keep_ckpts=1`` and for ``save_best``.
    - Checkpoints carry the identity of their run (`work_dir.begin_run`) and their position in the data (`position`).
    - A validation that the end of the run prevented is made up for when it resumes, so that the best checkpoint is that
      of a run that never stopped.
    - A checkpoint from the middle of an epoch (`InterruptHook`, ``minutes``) continues there, and is removed after the
      next one.

    Args:
        minutes: also save when so many minutes have passed since the last checkpoint, wherever the run is then.
        *args, **options: as for mmengine's.

    Raises:
        UserError: ``minutes`` is not above 0.
    """

    saved_at: int | None = None  # iterations done at the last checkpoint

    def __init__(self, *args, minutes: float | None = None, **options):
        super().__init__(*args, **options)
        if minutes is not None and not minutes > 0:
            raise UserError(f'default_hooks.checkpoint.minutes is {minutes}: expected a number above 0')
        self.minutes = minutes

    def before_train(self, runner) -> None:
        super().before_train(runner)
        self.file_backend = _RemoveLater(self.file_backend)
        if not hasattr(runner, 'checkpoints'):  # mmengine's own Runner writes them itself
            runner.checkpoints = CheckpointWriter()
        self.saved_time = time.monotonic()
        self.together, self.asked = StopTogether() if self.minutes else None, False
        self.run = None  # rank 0 alone writes checkpoints
        if is_main_process():
            continued = runner._resume == 'auto' or (runner._resume and runner._load_from is None)
            self.run = begin_run(runner.work_dir, continued, runner._load_from if runner._resume else None, runner.iter)
        if runner.iter and getattr(runner.train_loop, 'is_validation_due', bool)():
            self._make_up_for_validation(runner)

    def _make_up_for_validation(self, runner) -> None:
        made = [last_validation(runner.work_dir)]
        broadcast_object_list(made)
        if made[0] < runner.iter:
            last = runner.message_hub.runtime_info.get('last_ckpt')
            if last and Path(last).name == Path(str(runner._load_from)).name:
                self.last_ckpt = last  # to be written again with a new best score
            runner.logger.info(f'the validation after iteration {runner.iter} was not completed: it is made up for')
            runner.val_loop.run()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        runner.checkpoints.check()
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if self.minutes:
            due = bool(self.run) and not self.asked and time.monotonic() - self.saved_time >= 60 * self.minutes
            self.asked |= due
            if self.together(due) and self.saved_at != runner.iter + 1:
                self.save_between(runner, runner.iter + 1)

    def after_val_epoch(self, runner, metrics) -> None:
        super().after_val_epoch(runner, metrics)
        if self.run:
            runner.checkpoints.after(partial(note_validation, runner.work_dir, runner.iter))

    def after_train(self, runner) -> None:
        runner.checkpoints.wait()
        super().after_train(runner)

    def save_between(self, runner, done: int) -> None:
        """Save the run after ``done`` iterations as ``interrupted.pth``, which the next regular checkpoint replaces."""
        meta = dict(epoch=runner.epoch, iter=done, run=self.run, **position(runner))
        runner.save_checkpoint(runner.work_dir, INTERRUPTED, meta=meta)
        runner.logger.info(f'saving iteration {done} as {INTERRUPTED}')
        self._note_saved(done)

    def _note_saved(self, done: int) -> None:
        self.saved_at, self.saved_time, self.asked = done, time.monotonic(), False

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        # metrics that come now have the checkpoint before written again, which would otherwise count as the last one
        getattr(runner, 'finish_validation', bool)()
        if is_main_process():
            self._remove_outdated(runner)  # a best checkpoint that this one, written again, no longer knows
        self.last_ckpt = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                oldest = self.keep_ckpt_ids.popleft()
                self.file_backend.remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(oldest)))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir, self.filename_tmpl.format(step), save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta={**meta, **position(runner), 'run': self.run},
            by_epoch=self.by_epoch)
        self._note_saved(meta['iter'])
        if is_main_process():
            runner.checkpoints.after(partial(_point_to, self.last_ckpt, runner.work_dir))
            self._remove_outdated(runner)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        super()._save_best_checkpoint(runner, metrics)
        if is_main_process():
            self._remove_outdated(runner)

    def _remove_outdated(self, runner) -> None:
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        keep = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}
        runner.checkpoints.after(partial(self.file_backend.remove_now, self.file_backend.take(), keep))


def _point_to(checkpoint: str, work_dir: str) -> None:
    """Write mmengine's pointer file; the checkpoint is newer than one of an interruption."""
    with atomic_write(Path(work_dir, 'last_checkpoint')) as part:
        part.write_text(checkpoint)
    Path(work_dir, INTERRUPTED).unlink(missing_ok=True)


class _RemoveLater:
    """A file backend that defers removals."""

    def __init__(self, backend):
        self._backend = backend
        self._outdated = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._outdated.append(path)

    def take(self) -> list[str]:
        """The deferred removals, which are then forgotten."""
        taken, self._outdated = self._outdated, []
        return taken

    def remove_now(self, outdated: list[str], keep: set) -> None:
        """Remove files, except ``keep``: those that were just rewritten under an old name."""
        for path in outdated:
            if path not in keep and self._backend.isfile(path):
                self._backend.remove(path)
