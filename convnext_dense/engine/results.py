"""Evaluation outputs: metrics.json, predictions, pictures."""
import json
import math
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.logging import print_log
from mmengine.registry import METRICS
from mmengine.runner import Runner

from ..errors import UserError
from ..evaluation import prediction_file  # noqa: F401  (registers DumpPredictions)
from ..utils.files import atomic_write


def write_metrics(runner: Runner, metrics: dict[str, float]) -> None:
    """Write ``metrics`` (name -> number) to ``metrics.json`` in the runner's work dir; NaN becomes null."""
    if not is_main_process():
        return
    clean = {key: None if isinstance(value, float) and math.isnan(value) else float(value)
             for key, value in metrics.items()}
    file = Path(runner.work_dir) / 'metrics.json'
    with atomic_write(file) as part:
        part.write_text(json.dumps(clean, indent=2) + '\n')
    print_log(f'metrics written to {file}', logger='current')


def dump_predictions(cfg: Config, out: str) -> None:
    """Let the evaluation also write every prediction to the file ``out``, in place.

    ``.npz``: arrays and JSON (`evaluation.prediction_file`), which the report reads. ``.pkl``: a pickle; detection in
    mmdet's format, masks as COCO RLE; segmentation in mmengine's, label maps only.

    Raises:
        UserError: ``out`` has another suffix.
    """
    if out.endswith('.npz'):
        dump = dict(type='DumpPredictions', out_file=out)
    elif out.endswith(('.pkl', '.pickle')):
        dump = dict(type='DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'DumpLabelMaps',
                    out_file_path=out)
    else:
        raise UserError(f'--out {out}: expected a name that ends in .npz (arrays and JSON) or .pkl (a pickle of mmdet '
                        'or mmengine)')
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    cfg.test_evaluator = [*evaluators, dump]


def draw_predictions(cfg: Config, folder: str) -> None:
    """Let the evaluation also draw every image with ground truth and prediction into ``folder``, in place."""
    from ..visualization import hook  # noqa: F401  (registers DrawPredictionsHook)
    Path(folder).mkdir(parents=True, exist_ok=True)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='DrawPredictionsHook', out_dir=folder)]


@METRICS.register_module()
class DumpLabelMaps(DumpResults):
    """mmengine's DumpResults for segmentation, label maps only: the scores of one ADE20K image take some 200 MB."""

    def process(self, data_batch, predictions) -> None:
        for prediction in predictions:
            labels = prediction['pred_sem_seg']['data'].to(torch.int16)
            kept = {key: value for key, value in prediction.items() if key not in ('seg_logits', 'gt_sem_seg')}
            super().process(data_batch, [{**kept, 'pred_sem_seg': {'data': labels}}])
