"""Training options that a config switches on by one entry of ``custom_hooks``, and checkpoints that resume exactly."""
from pathlib import Path

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ..mm.fallbacks import unwrap_model
from .loops import position
from .work_dir import INTERRUPTED, begin_run, last_validation, note_validation


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
    - Checkpoints carry the identity of their run (`work_dir.begin_run`) and their position in the data (`position`).
    - A validation that the end of the run prevented is made up for when it resumes, so that the best checkpoint is that
      of a run that never stopped.
    - A checkpoint from the middle of an epoch (`InterruptHook`) continues there, and is removed after the next one.
    """

    saved_at: int | None = None  # iterations done at the last checkpoint

    def before_train(self, runner) -> None:
        super().before_train(runner)
        self.file_backend = _RemoveLater(self.file_backend)
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

    def after_val_epoch(self, runner, metrics) -> None:
        super().after_val_epoch(runner, metrics)
        if self.run:
            note_validation(runner.work_dir, runner.iter)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        meta = {**meta, **position(runner), 'run': self.run}
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
