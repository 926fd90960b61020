"""Work dirs as the tools leave them, without training: a config, a log, and damaged ground truth as predictions."""
import json
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from noisy import noisy_detections, noisy_label_maps  # noqa: E402
from pycocotools.coco import COCO  # noqa: E402
from tool_runs import CONFIGS  # noqa: E402

from convnext_dense.config import load_config  # noqa: E402
from convnext_dense.evaluation.prediction_file import write_predictions  # noqa: E402

VALIDATED = {'det': {'coco/bbox_mAP': 0.25, 'coco/segm_mAP': 0.125}, 'seg': {'mIoU': 40.0}}


@pytest.fixture(scope='session')
def shapes(make_shapes) -> Path:
    """Two training and ten validation images of 64 pixels, as coco/ and ade/."""
    return make_shapes(train=2, val=10)


@pytest.fixture(scope='session')
def truth(shapes) -> COCO:
    return COCO(str(shapes / 'coco/annotations/instances_val2017.json'))


@pytest.fixture
def make_run(shapes, truth, tmp_path):
    """make_run(name, task, seed=0, config=None) -> a work dir; `config` is the name of its config file."""
    def make(name: str, task: str, seed: int = 0, config: str | None = None) -> Path:
        folder = tmp_path / name
        (folder / '20260101_000000/vis_data').mkdir(parents=True)
        data_root = shapes / {'det': 'coco', 'seg': 'ade'}[task]
        cfg = load_config(str(CONFIGS[task]), data_root=str(data_root), work_dir=str(folder))
        cfg.dump(folder / f'{config or CONFIGS[task].stem}.py')
        predictions = noisy_detections(truth, data_root / 'val2017', seed) if task == 'det' \
            else noisy_label_maps(data_root, seed)
        write_predictions(folder / 'predictions.npz', predictions)
        rows = [{'lr': 0.1, 'loss': 3.0 / step, 'loss_cls': 1.0 / step, 'iter': step, 'step': step} for step in (1, 2)]
        rows.append({**VALIDATED[task], 'step': 2})
        (folder / '20260101_000000/vis_data/scalars.json').write_text(''.join(json.dumps(row) + '\n' for row in rows))
        return folder
    return make
