"""Training options that a config switches on by one entry of ``custom_hooks``, and checkpoints that resume exactly."""
import logging
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ..mm.fallbacks import unwrap_model
from .random_state import RestOfEpoch, RestoreAfterReplay, random_state, set_random_state
from .work_dir import INTERRUPTED, begin_run


@HOOKS.register_module()
class CompileBackboneHook(Hook):
    """Compile the backbone with torch.compile before training; checkpoints stay as they are.

    Useful where input sizes rarely change (segmentation crops): each new size recompiles, unless ``dynamic``.

    Args:
        **options: of torch.compile, as ``mode`` or ``dynamic``.
    """

    def __init__(self, **options):
        self.options = options

    def before_train(self, runner) -> None:
        unwrap_model(runner.model).backbone.compile(**self.options)


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
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, with these differences. Our Runner uses it wherever a config says ``CheckpointHook``.

    - An old checkpoint is removed after the new one is written, not before. A run that is killed, or finds the disk
      full, while it writes then still has the one before, also with ``max_keep_ckpts=1`` and for ``save_best``.
    - Checkpoints hold the random state of every rank's main process, and resuming restores it; a validation leaves the
      state as it was. A resumed run then draws the numbers of an uninterrupted one (flips, sampled RoIs, drop
      path, ...), as long as the data loader has no workers: they have generators of their own.
    - Checkpoints carry the identity of their run (`work_dir.begin_run`).
    - A checkpoint from the middle of an epoch (`InterruptHook`) continues there, and is removed after the next one.
    """

    random_states: list[dict] | None = None  # of a resumed checkpoint, one per rank, until they are restored
    done_in_epoch = 0  # batches of the resumed checkpoint's epoch
    saved_at: int | None = None  # iterations done at the last checkpoint

    def before_train(self, runner) -> None:
        super().before_train(runner)
        self.file_backend = _RemoveLater(self.file_backend)
        self.run = None  # rank 0 alone writes checkpoints
        if is_main_process():
            continued = runner._resume == 'auto' or (runner._resume and runner._load_from is None)
            self.run = begin_run(runner.work_dir, continued, runner._load_from if runner._resume else None)

    def after_load_checkpoint(self, runner, checkpoint) -> None:
        if runner._resume:
            meta = checkpoint.get('meta', {})
            self.random_states, self.done_in_epoch = meta.get('random_states'), meta.get('done_in_epoch', 0)

    def before_train_epoch(self, runner) -> None:
        states, self.random_states = self.random_states, None
        skipped, self.done_in_epoch = self.done_in_epoch, 0
        if states is not None and len(states) != runner.world_size:
            print_log(f'the checkpoint was written by {len(states)} process(es), not {runner.world_size}: the random '
                      'state is not restored', logger='current', level=logging.WARNING)
            states, skipped = None, skipped // runner.world_size
        loop, state = runner.train_loop, states and states[runner.rank]
        if 0 < skipped <= len(loop.dataloader):
            loop.dataloader = RestOfEpoch(loop.dataloader, skipped, state)
        elif state is None:
            return
        elif hasattr(loop, 'dataloader_iterator'):
            replayed = 0 if getattr(loop, 'fast_forward_on_resume', False) else loop.iter  # an option of onedl-mmengine
            loop.dataloader_iterator = RestoreAfterReplay(loop.dataloader_iterator, replayed, state)
        else:
            set_random_state(state)

    def after_train_epoch(self, runner) -> None:
        super().after_train_epoch(runner)
        if isinstance(runner.train_loop.dataloader, RestOfEpoch):
            runner.train_loop.dataloader = runner.train_loop.dataloader.loader

    def before_val(self, runner) -> None:
        self._before_val = random_state()

    def after_val_epoch(self, runner, metrics) -> None:
        set_random_state(self._before_val)
        super().after_val_epoch(runner, metrics)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        meta = {**meta, 'run': self.run, 'random_states': all_gather_object(random_state())}
        super()._save_checkpoint_with_step(runner, step, meta)
        self.saved_at = runner.iter if self.by_epoch else runner.iter + 1
        self._remove_outdated()
        if is_main_process():
            Path(runner.work_dir, INTERRUPTED).unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        self.file_backend.remove_now(keep={self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best})


class _RemoveLater:
    """A file backend that defers removals."""

    def __init__(self, backend):
        self._backend = backend
        self._outdated = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._outdated.append(path)

    def remove_now(self, keep: set) -> None:
        """Perform the deferred removals, except of ``keep``: files that were just rewritten under an old name."""
        for path in self._outdated:
            if path not in keep and self._backend.isfile(path):
                self._backend.remove(path)
        self._outdated.clear()
