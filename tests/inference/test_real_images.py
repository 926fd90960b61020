"""On real images a Predictor gives what mmdet's and mmseg's own classes give with the same weights."""
import pytest

from convnext_dense.benchmark.compare import build_pair, check_same
from convnext_dense.config import load_config

IMAGES = {'det': ('coco/val2017', 320), 'seg': ('ade/ADEChallengeData2016/images', 256)}


@pytest.mark.slow
@pytest.mark.parametrize('task', IMAGES)
def test_results_are_the_stock_stacks(task, tiny, checkpoints, real_data):
    """Boxes to 1e-3 px; labels and masks but for ties, which are counted."""
    folder, side = IMAGES[task]
    cfg = load_config(str(tiny[task]))
    cfg.test_dataloader.dataset.pipeline[1].scale = (side, side)
    if task == 'det':
        cfg.model.test_cfg.rcnn.max_per_img = 50
    pair = build_pair(cfg, str(checkpoints[task]), 'cpu')
    pair['ours'].optimize()
    files = sorted((real_data / folder).rglob('*.jpg'))[:20]
    found = [check_same(*([predictor(file)] for predictor in pair.values()), exact=False) for file in files]
    if task == 'seg':
        pixels = max(one['pixels'] for one in found)
        print(f'label maps of {len(files)} images: {pixels:.1e} of the pixels of an image differ at most (ties)')
        assert len(files) >= 15 and pixels < 1e-4
        return
    total, unmatched = (sum(one[key] for one in found) for key in ('detections', 'unmatched'))
    boxes, pixels = (max(one[key] for one in found) for key in ('boxes', 'pixels'))
    print(f'{total} detections in {len(files)} images: boxes within {boxes:.1e} px, {pixels:.1e} of the pixels of a '
          f'mask differ at most, {unmatched} without partner')
    assert total == 50 * len(files) and boxes < 1e-3 and pixels < 1e-4 and not unmatched
