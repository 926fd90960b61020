"""What the backbones and the checkpoint code take from mmengine, with plain stand-ins where it is not installed.

The backbone alone then needs torch only.
"""
import logging

from torch import nn

from ..errors import UserError
from .environment import INSTALL_HINT

try:
    from mmengine.logging import print_log
    from mmengine.model import BaseModule, BaseTTAModel, is_model_wrapper
    from mmengine.registry import MODELS
except ModuleNotFoundError as error:
    if error.name != 'mmengine':
        raise

    class BaseModule(nn.Module):
        """nn.Module that keeps ``init_cfg``, as mmengine's does."""

        def __init__(self, init_cfg: dict | None = None):
            super().__init__()
            self.init_cfg = init_cfg

        def init_weights(self) -> None:
            """Nothing to do: the backbones are initialised when built, and load 'Pretrained' themselves."""
            if self.init_cfg:
                raise UserError(f'init_cfg {self.init_cfg} needs mmengine: {INSTALL_HINT}')

    class BaseTTAModel(nn.Module):
        """Nothing is one: test-time augmentation needs mmengine."""

    class MODELS:
        """There is no registry to enter."""

        @staticmethod
        def register_module(**_):
            return lambda cls: cls

    def is_model_wrapper(model: nn.Module) -> bool:
        """Whether a model is wrapped for distributed training."""
        return isinstance(model, nn.parallel.DistributedDataParallel)

    def print_log(message: str, logger=None, level: int = logging.INFO) -> None:
        """Log under the package's name."""
        logging.getLogger('convnext_dense').log(level, message)


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model inside distributed and test-time-augmentation wrappers."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


__all__ = ['MODELS', 'BaseModule', 'print_log', 'unwrap_model']
