"""ConvNeXt for dense prediction.

Importing this package prepares the installed MM stack (operators, safe loading, known breakages) and then registers
everything that can be registered with what is installed. The backbones alone need torch and nothing else; without
torch there is `convnext_dense.runtime`, which runs exported models.
"""
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .checkpoints import load_checkpoint
    from .inference.predictor import Predictor
    from .models import ConvNeXt, RoadmapNet

__all__ = ['ConvNeXt', 'Predictor', 'RoadmapNet', '__version__', 'load_checkpoint']


def prepare() -> None:
    """Prepare the MM stack and register what can be registered, once.

    Importing the package calls it. In our commands it is called when the arguments are there, so that ``--help`` need
    not wait for torch, and Ctrl-C is understood from the beginning.
    """
    if 'ConvNeXt' in globals():
        return
    from .mm import environment
    if not environment.installed('torch'):
        return
    from .mm import patches
    patches.before_mm_imports()
    from .checkpoints import load_checkpoint, loading, read_checkpoint
    from .models import ConvNeXt, RoadmapNet
    if environment.installed('mmengine'):
        from . import optim  # noqa: F401  (registration)
        from .config.locations import OWN_PREFIX, find_config
        from .engine import hooks, training_watch  # noqa: F401  (registration)
        from .engine.loading import load_in_runner

        patches.resolve_configs(OWN_PREFIX, find_config)
        patches.escape_dumped_configs()
        patches.read_data_anywhere()
        patches.load_safely(read_checkpoint)
        patches.stand_in_for_mmpretrain(ConvNeXt)
        patches.load_strictly(loading.has_our_backbone, load_in_runner)
    globals().update(ConvNeXt=ConvNeXt, RoadmapNet=RoadmapNet, load_checkpoint=load_checkpoint)


def _is_command() -> bool:
    """Whether this process is one of our commands, which call `prepare` themselves.

    Not so the processes that it starts to load data: they have its ``sys.argv``, but were started in another way.
    """
    words = sys.orig_argv
    if '-m' in words and words[words.index('-m') + 1:][:1] == [f'{__name__}.cli']:
        return True
    program, package = Path(sys.argv[0]), Path(__file__).resolve().parent
    is_tool = program.resolve().parent in (package.parent / 'tools', package / '.mim/tools') and \
        (package / 'cli' / program.name).is_file()
    return sys.argv[0] in words and (is_tool or program.stem == 'convnext-dense')


def __getattr__(name: str):
    """`Predictor` is imported when it is first used: it needs mmengine, and what draws."""
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .mm import environment
    environment.require('torch')
    prepare()
    if name != 'Predictor':
        return globals()[name]
    environment.require('mmengine')
    from .inference.predictor import Predictor
    return Predictor


if not _is_command():
    prepare()
