"""The predictions of a report: those of an earlier evaluation, or of one that is made for it."""
import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.logging import print_log

from ..engine.results import dump_predictions, write_metrics
from ..engine.runner import DenseRunner, prepare_testing
from ..errors import UserError
from ..evaluation.prediction_file import PREDICTIONS, read_pickled_predictions, read_predictions
from .work_dir import OLD_PREDICTIONS, WorkDir


def find_predictions(work: WorkDir, again: bool = False, trust_pickle: bool = False) -> Path:
    """The file with a work dir's predictions; an evaluation writes it where there is none, or with `again`.

    Args:
        work: the work dir.
        again: evaluate, even if there are predictions.
        trust_pickle: also take a predictions.pkl, where there is no newer predictions.npz.

    Raises:
        UserError: there is neither a checkpoint nor a file of predictions, or the test data is not there.
    """
    found = None if again else work.predictions(trust_pickle)
    if found is not None:
        return found
    pickled = ''
    if (work.path / OLD_PREDICTIONS).is_file() and not trust_pickle:
        pickled = f'; {OLD_PREDICTIONS} is a pickle, which can run code, and is only read with --trust-pickle'
    if work.checkpoint is None:
        raise UserError(f'{work.path} has neither a checkpoint (best_*.pth, epoch_N.pth or iter_N.pth) nor '
                        f'{PREDICTIONS}: name the weights with --checkpoint FILE{pickled}')
    folder = work.evaluation_dir
    print_log(f'{work.path} has no predictions of {work.checkpoint}: evaluating it now, into {folder}{pickled}',
              logger='current', level=logging.WARNING)
    cfg = copy.deepcopy(work.cfg)
    cfg.work_dir = str(folder)
    if cfg.get('visualizer'):
        cfg.visualizer.name = str(folder)  # mmengine has one visualizer of a name for all runners of a process
    prepare_testing(cfg, str(work.checkpoint))
    dump_predictions(cfg, str(folder / PREDICTIONS))
    runner = DenseRunner.from_cfg(cfg)
    write_metrics(runner, runner.test())
    return folder / PREDICTIONS


def load_predictions(file: Path) -> Sequence[Mapping]:
    """The content of a file that `find_predictions` returned.

    Raises:
        UserError: it cannot be read.
    """
    return read_pickled_predictions(file) if file.name == OLD_PREDICTIONS else read_predictions(file)
