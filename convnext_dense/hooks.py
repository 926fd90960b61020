"""Training options that a config switches on by one entry of ``custom_hooks``."""
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn


def bare(model: nn.Module) -> nn.Module:
    """The model itself, out of its data-parallel wrapper."""
    return getattr(model, 'module', model)


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
        bare(runner.model).backbone.compile(**self.options)


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the whole model in channels-last memory: neck and heads too (our backbone always is)."""

    def before_train(self, runner) -> None:
        bare(runner.model).to(memory_format=torch.channels_last)
