"""Loading a checkpoint into a Runner's model."""
import copy
from typing import Any

from mmengine.config import Config
from mmengine.runner import BaseLoop
from torch import nn

from ..checkpoints.loading import fit_checkpoint
from ..checkpoints.reading import read_checkpoint
from ..mm.fallbacks import unwrap_model
from ..recipes.model_info import build_on_meta


def load_in_runner(runner: Any, filename: str, map_location: Any = 'cpu') -> dict:
    """What mmengine's ``Runner.load_checkpoint`` does, for a model with our backbone: strict, hooks included.

    No keys may be missing, and the classes must be the file's, when the runner resumes or only evaluates.
    """
    loops = [getattr(runner, f'_{name}_loop') for name in ('train', 'val', 'test')]
    built = [loop for loop in loops if isinstance(loop, BaseLoop)]
    evaluates = bool(built) and built[0] is not loops[0]
    metainfo = getattr(built[0].dataloader.dataset, 'metainfo', None) if built else None
    classes = (metainfo or {}).get('classes') or ()
    checkpoint = fit_checkpoint(runner.model, read_checkpoint(filename, map_location), filename,
                                complete=bool(runner._resume) or evaluates, classes=classes,
                                class_layers=lambda: find_class_layers(runner.model, runner.cfg, len(classes)))
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)  # EMAHook takes or swaps weights here
    unwrap_model(runner.model).load_state_dict(checkpoint['state_dict'])
    runner._has_loaded = True
    return checkpoint


def find_class_layers(model: nn.Module, cfg: Config, classes: int) -> list[str]:
    """Names of the layers whose shapes follow from the number of classes.

    Found by building the config's model for one class more; none where that cannot be built.

    Args:
        model: built from ``cfg``.
        classes: their number.
    """
    if 'model' not in cfg:
        return []
    other = copy.deepcopy(cfg)
    set_classes(other.model, classes, classes + 1)
    try:
        shapes = {key: value.shape for key, value in build_on_meta(other).state_dict().items()}
    except Exception:  # any head may insist on a number of classes; the weights are then loaded with a warning
        return []
    state = unwrap_model(model).state_dict()
    changed = [key for key, value in state.items() if shapes.get(key, value.shape) != value.shape]
    return sorted({key.rpartition('.')[0] for key in changed})


def set_classes(part: Any, old: int, new: int) -> None:
    """Replace the number of classes everywhere in a model's config, in place."""
    if isinstance(part, dict):
        if part.get('num_classes') == old:
            part['num_classes'] = new
        part = list(part.values())
    if isinstance(part, list | tuple):
        for each in part:
            set_classes(each, old, new)
