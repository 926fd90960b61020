"""ConvNeXt for dense prediction.

Importing this package prepares the installed stack (operators, safe loading, known breakages) and then registers
everything that can be registered with what is installed. The backbones alone need torch and nothing else.
"""
from . import stack
from .version import __version__

stack.prepare()  # before anything below can import mmcv, mmdet or mmseg

from .checkpoints import load_checkpoint  # noqa: E402
from .models import ConvNeXt, RoadmapNet  # noqa: E402

if stack.installed('mmengine'):
    from . import hooks, optim, training_watch  # noqa: F401  (registration)

__all__ = ['ConvNeXt', 'Predictor', 'RoadmapNet', '__version__', 'load_checkpoint']


def __getattr__(name: str):
    """`Predictor` is imported when it is first used: it needs mmengine, and what draws."""
    if name != 'Predictor':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    stack.require('mmengine')
    from .inference.predictor import Predictor
    return Predictor
