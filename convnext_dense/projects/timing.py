"""How long a project would train on this machine, from a few measured steps."""
import time
from pathlib import Path

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from ..config import load_config
from ..engine.runner import DenseRunner
from ..errors import first_line
from ..mm.device import use_device
from ..optim.amp import for_this_machine
from ..utils.quiet import quiet
from .plan import Plan

STEPS = 3  # the first one, which allocates memory, does not count
PATIENCE = 20  # seconds; a first step that takes longer is the only one
VALIDATIONS = 10  # of a run (render.py)
INFERENCE = 1 / 3  # of an image's time in training


def estimate(file: Path, plan: Plan, device: str) -> str:
    """A sentence about how long the whole run takes, or why that could not be measured.

    Steps are measured with untrained weights and the project's own data; validations are guessed from them.

    Args:
        file: the project's config.
        device: 'cuda' or 'cpu'.
    """
    try:
        with quiet():  # mmengine prints the learning rate and the initialisation of every parameter
            step = measure_step(load_config(str(file)), device)
    except Exception as error:  # the project is written; checking and training say what is wrong
        return f'Training time: not measured ({type(error).__name__}: {first_line(error)}).'
    validation = VALIDATIONS * plan.info.splits['val'].images * INFERENCE * step / plan.batch
    return f'Training time: about {duration(plan.iterations * step + validation)} on this machine, an estimate from ' \
           f'steps of {step:.2g} seconds.'


def measure_step(cfg, device: str) -> float:
    """Seconds of a training step of a config, data loading in this process included."""
    use_device(device)
    init_default_scope(cfg.default_scope)
    loader = DenseRunner.build_dataloader({**cfg.train_dataloader, 'num_workers': 0}, seed=0)
    cfg.model.backbone.init_cfg = None  # weights need not be downloaded
    model = MODELS.build(cfg.model)
    model.init_weights()  # some parameters are uninitialised memory until then, such as DINO's level_embed
    model = revert_sync_batchnorm(model).to(device).train()
    optimizer = build_optim_wrapper(model, for_this_machine(cfg.optim_wrapper))
    times, batches = [], iter(loader)
    while len(times) < STEPS and (not times or times[0] < PATIENCE):
        begin = time.perf_counter()
        batch = next(batches, None)
        if batch is None:  # a data set of one or two batches
            break
        model.train_step(batch, optimizer)
        if device == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    later = times[1:] or times
    return sum(later) / len(later)


def duration(seconds: float) -> str:
    """Two digits at most: 50 seconds, 7 minutes, 3.5 hours, 12 days."""
    for unit, size in (('day', 86400), ('hour', 3600), ('minute', 60)):
        if seconds >= 1.5 * size:
            number = seconds / size
            return f'{number:.1f} {unit}s' if number < 10 and unit != 'minute' else f'{number:.0f} {unit}s'
    return f'{max(seconds, 1):.0f} seconds'
