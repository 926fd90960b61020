"""Predictions for a report, where the work dir has none that fit."""
import copy
import logging
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import DumpResults
from mmengine.logging import print_log
from mmengine.registry import METRICS

from ..errors import UserError
from ..results import dump_predictions, write_metrics
from ..runner import Runner, prepare_testing
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
    if work.task == 'det':
        dump_predictions(cfg, str(partial))
    else:
        dump_label_maps(cfg, partial)
    runner = Runner.from_cfg(cfg)
    write_metrics(runner, runner.test())
    os.replace(partial, folder / PREDICTIONS)
    return folder / PREDICTIONS


@METRICS.register_module()
class DumpLabelMaps(DumpResults):
    """mmengine's DumpResults for segmentation, label maps only: the scores of one ADE20K image take some 200 MB."""

    def process(self, data_batch, predictions) -> None:
        for prediction in predictions:
            labels = prediction['pred_sem_seg']['data'].to(torch.int16)
            kept = {key: value for key, value in prediction.items() if key not in ('seg_logits', 'gt_sem_seg')}
            super().process(data_batch, [{**kept, 'pred_sem_seg': {'data': labels}}])


def dump_label_maps(cfg: Config, out: Path) -> None:
    """Let a segmentor's evaluation also write its label maps to the pickle file `out`, in place."""
    out.parent.mkdir(parents=True, exist_ok=True)
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    cfg.test_evaluator = [*evaluators, dict(type='DumpLabelMaps', out_file_path=str(out))]
