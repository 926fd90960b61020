"""ConvNeXt for dense prediction.

Importing this package prepares the installed MM stack (operators, safe loading, known breakages) and then registers
everything that can be registered with what is installed. The backbones alone need torch and nothing else.
"""
from .mm import environment, patches
from .version import __version__

patches.before_mm_imports()

from .checkpoints import load_checkpoint, loading, read_checkpoint  # noqa: E402
from .models import ConvNeXt, RoadmapNet  # noqa: E402

if environment.installed('mmengine'):
    from . import optim  # noqa: F401  (registration)
    from .config.locations import OWN_PREFIX, find_config
    from .engine import hooks, training_watch  # noqa: F401  (registration)
    from .engine.loading import load_in_runner

    patches.resolve_configs(OWN_PREFIX, find_config)
    patches.escape_dumped_configs()
    patches.load_safely(read_checkpoint)
    patches.stand_in_for_mmpretrain(ConvNeXt)
    patches.load_strictly(loading.has_our_backbone, load_in_runner)

__all__ = ['ConvNeXt', 'Predictor', 'RoadmapNet', '__version__', 'load_checkpoint']


def __getattr__(name: str):
    """`Predictor` is imported when it is first used: it needs mmengine, and what draws."""
    if name != 'Predictor':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    environment.require('mmengine')
    from .inference.predictor import Predictor
    return Predictor
