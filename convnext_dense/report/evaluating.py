"""Predictions for a report, where the work dir has none that fit."""
import copy
import logging
import os
from pathlib import Path

from mmengine.logging import print_log

from ..engine.results import dump_predictions, write_metrics
from ..engine.runner import DenseRunner, prepare_testing
from ..errors import UserError
from .work_dir import PREDICTIONS, WorkDir


def predictions_of(work: WorkDir, anew: bool) -> Path:
    """The file with a work dir's predictions; made by an evaluation where there is none, or with `anew`.

    Raises:
        UserError: there is neither a checkpoint nor a file of predictions, or the test data is not there.
    """
    found = None if anew else work.predictions()
    if found is not None:
        return found
    if work.checkpoint is None:
        raise UserError(f'{work.path} has neither a checkpoint (*.pth) nor {PREDICTIONS}: name the weights with '
                        '--checkpoint FILE')
    folder = work.evaluation_dir
    print_log(f'{work.path} has no predictions of {work.checkpoint}: evaluating it now, into {folder}',
              logger='current', level=logging.WARNING)
    cfg = copy.deepcopy(work.cfg)
    cfg.work_dir = str(folder)
    if cfg.get('visualizer'):
        cfg.visualizer.name = str(folder)  # mmengine has one visualizer of a name for all runners of a process
    prepare_testing(cfg, str(work.checkpoint))
    partial = folder / f'unfinished_{PREDICTIONS}'
    dump_predictions(cfg, str(partial))
    runner = DenseRunner.from_cfg(cfg)
    write_metrics(runner, runner.test())
    os.replace(partial, folder / PREDICTIONS)
    return folder / PREDICTIONS
