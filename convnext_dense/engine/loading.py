"""Loading a checkpoint into a Runner's model."""
from typing import Any

from mmengine.runner import BaseLoop

from ..checkpoints.loading import fit_checkpoint
from ..checkpoints.reading import read_checkpoint
from ..mm.fallbacks import unwrap_model


def load_in_runner(runner: Any, filename: str, map_location: Any = 'cpu') -> dict:
    """What mmengine's ``Runner.load_checkpoint`` does, for a model with our backbone: strict, hooks included.

    Nothing may stay as initialised when the runner resumes or only evaluates.
    """
    loops = {name: isinstance(getattr(runner, f'_{name}_loop'), BaseLoop) for name in ('train', 'val', 'test')}
    evaluates = (loops['val'] or loops['test']) and not loops['train']
    dataset = runner.train_loop.dataloader.dataset if loops['train'] else None
    checkpoint = fit_checkpoint(runner.model, read_checkpoint(filename, map_location), filename,
                                complete=runner._resume or evaluates,
                                classes=getattr(dataset, 'metainfo', {}).get('classes') or ())
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)  # EMAHook takes or swaps weights here
    unwrap_model(runner.model).load_state_dict(checkpoint['state_dict'])
    runner._has_loaded = True
    return checkpoint
