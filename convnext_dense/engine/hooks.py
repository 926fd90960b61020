"""Training options that a config switches on by one entry of ``custom_hooks``, and checkpoints that outlive a kill."""
import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS

from ..mm.fallbacks import unwrap_model


@HOOKS.register_module()
class CompileBackboneHook(Hook):
    """Compile the backbone with torch.compile before training; checkpoints stay as they are.

    Worth it where images have few sizes (crops of segmentation): every new size compiles again, unless ``dynamic``.

    Args:
        **options: of torch.compile, as ``mode`` or ``dynamic``.
    """

    def __init__(self, **options):
        self.options = options

    def before_train(self, runner) -> None:
        unwrap_model(runner.model).backbone.compile(**self.options)


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the whole model in channels-last memory: neck and heads too (our backbone always is)."""

    def before_train(self, runner) -> None:
        unwrap_model(runner.model).to(memory_format=torch.channels_last)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, which removes an old checkpoint before it writes the new one; this one, after.

    A run that is killed, or finds the disk full, while it writes then still has the one before, also with
    ``max_keep_ckpts=1`` and for ``save_best``. Our Runner uses it wherever a config says ``CheckpointHook``.
    """

    def before_train(self, runner) -> None:
        super().before_train(runner)
        self.file_backend = _RemoveLater(self.file_backend)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self._remove_outdated()

    def _save_best_checkpoint(self, runner, metrics) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        self.file_backend.remove_now(keep={self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best})


class _RemoveLater:
    """A file backend that collects what should be removed until it is told to."""

    def __init__(self, backend):
        self._backend = backend
        self._outdated = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._outdated.append(path)

    def remove_now(self, keep: set) -> None:
        """Remove what was collected; ``keep`` has just been written again under an old name."""
        for path in self._outdated:
            if path not in keep and self._backend.isfile(path):
                self._backend.remove(path)
        self._outdated.clear()
