"""mIoU, mAcc, Dice and F-score equal mmseg's, and the matrix a loop over pixels, integer by integer."""
import json
import math

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from PIL import Image

from convnext_dense.errors import UserError
from convnext_dense.evaluation.iou_metric import FastIoUMetric, areas, confusion_matrix

ALL = ['mIoU', 'mDice', 'mFscore']


def random_pair(seed: int, classes: int, size=(40, 50), ignore: int = 255) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels, a tenth of them ignored, and a prediction that is right on most pixels."""
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=size)
    prediction = np.where(rng.random(size) < 0.7, label, rng.integers(classes, size=size))
    label[rng.random(size) < 0.1] = ignore
    return torch.from_numpy(label), torch.from_numpy(prediction)


def by_loop(label, prediction, classes: int, ignore: int = 255) -> list[list[int]]:
    counts = [[0] * classes for _ in range(classes)]
    for true, found in zip(label.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if true != ignore:
            counts[true][found] += 1
    return counts


def samples_of(pairs) -> list[dict]:
    return [dict(gt_sem_seg=dict(data=label[None]), pred_sem_seg=dict(data=prediction[None]), img_path=f'{i}.jpg',
                 seg_map_path=f'labels/{i}.png') for i, (label, prediction) in enumerate(pairs)]


def run(metric, pairs, classes: int) -> dict:
    metric.dataset_meta = dict(classes=[f'class {i}' for i in range(classes)])
    for sample in samples_of(pairs):
        metric.process({}, [sample])
    return metric.evaluate(len(pairs))


def same(ours: dict, theirs: dict) -> float:
    """Largest difference in percent points; the keys and what is nan must agree."""
    assert ours.keys() == theirs.keys()
    assert [math.isnan(ours[key]) for key in theirs] == [math.isnan(value) for value in theirs.values()]
    return max(abs(ours[key] - value) for key, value in theirs.items() if not math.isnan(value))


@pytest.mark.parametrize('classes, ignore', [(2, 255), (19, 255), (150, 255), (150, 0), (300, 255), (5, -1),
                                             (5, 65535), (4, 4)])
def test_matrix_equals_a_loop(classes, ignore):
    label, prediction = random_pair(classes, classes, ignore=ignore)
    expected = by_loop(label, prediction, classes, ignore)
    assert confusion_matrix(label, prediction, classes, ignore).tolist() == expected
    if classes <= 256 and 0 <= ignore <= 255:
        assert confusion_matrix(label.byte(), prediction.byte(), classes, ignore).tolist() == expected


@pytest.mark.parametrize('classes', [2, 19, 150])
def test_metrics_equal_mmseg(classes):
    differences = []
    for seed in range(5):
        pairs = [random_pair(10 * seed + i, classes, size=(30 + i, 40)) for i in range(4)]
        for options in (dict(iou_metrics=ALL), dict(iou_metrics='mIoU', nan_to_num=-1), dict(beta=2, iou_metrics=ALL)):
            differences.append(same(run(FastIoUMetric(**options), pairs, classes),
                                    run(IoUMetric(**options), pairs, classes)))
    print(f'\n{classes} classes: largest difference {max(differences)} percent points in {len(differences)} runs')
    assert max(differences) < 1e-5, 'both round to 0.01, mmseg in float32'


def test_areas_equal_mmseg_on_real_ade20k_labels(real_data):
    folder, largest, pixels = real_data / 'ade/ADEChallengeData2016/annotations', 0, 0
    files = sorted(folder.glob('*/*.png'))
    for number, file in enumerate(files):
        label = torch.from_numpy(np.array(Image.open(file))).long()
        label = torch.where(label == 0, 255, label - 1)  # what reduce_zero_label does in the data set
        right = torch.rand(label.shape, generator=torch.Generator().manual_seed(number)) < 0.8
        prediction = torch.where(right & (label < 150), label, (label + number) % 150)
        ours = areas(confusion_matrix(label, prediction, 150))
        theirs = IoUMetric.intersect_and_union(prediction, label, 150, 255)
        largest = max(largest, *(int((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)))
        pixels += label.numel()
    print(f'\nlargest difference {largest} pixels in {len(files)} images of {pixels} pixels')
    assert largest == 0 and len(files) == 15


def test_absent_classes_are_nan_and_out_of_the_mean():
    label = torch.tensor([[0, 0, 1, 255]])
    prediction = torch.tensor([[0, 2, 1, 3]])  # class 3 only where nothing counts, class 2 only predicted
    metric = FastIoUMetric(iou_metrics=ALL, per_class=True)
    found = run(metric, [(label, prediction)], 5)
    # by hand: class 0 has intersection 1 and union 2, class 1 has 1 and 1, class 2 has 0 and 1
    assert [found[f'IoU_class {i}'] for i in range(3)] == [50.0, 100.0, 0.0]
    assert math.isnan(found['IoU_class 3']) and math.isnan(found['IoU_class 4'])
    assert math.isnan(found['Acc_class 2']) and found['Acc_class 0'] == 50.0
    assert (found['mIoU'], found['mAcc'], found['aAcc']) == (50.0, 75.0, 66.67)
    assert found['Dice_class 0'] == 66.67 and found['Precision_class 0'] == 100.0 and found['Recall_class 0'] == 50.0
    assert metric.confusion_matrix.tolist() == [[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], *[[0] * 5] * 3]


def test_nothing_to_count_is_nan():
    ignored = torch.full((3, 3), 255)
    found = run(FastIoUMetric(), [(ignored, torch.zeros(3, 3, dtype=torch.long))], 3)
    assert all(math.isnan(value) for value in found.values())


def test_counts_stay_exact_where_float32_does_not():
    metric, pixels = FastIoUMetric(), 2 ** 24 + 1
    label = torch.zeros(pixels, 1, dtype=torch.uint8)
    prediction = label.clone()
    prediction[0] = 1
    run(metric, [(label, prediction)], 2)
    assert metric.confusion_matrix.tolist() == [[2 ** 24, 1], [0, 0]]
    run(metric, [(label, prediction)] * 2, 2)
    assert metric.confusion_matrix.tolist() == [[2 ** 25, 2], [0, 0]], 'an evaluation starts from nothing'


def test_files_are_those_of_mmseg(tmp_path):
    pairs = [random_pair(i, 7) for i in range(2)]
    samples = [{**sample, 'reduce_zero_label': bool(i)} for i, sample in enumerate(samples_of(pairs))]
    found = {}
    for kind in (FastIoUMetric, IoUMetric):
        metric = kind(output_dir=str(tmp_path / kind.__name__), format_only=True)
        metric.dataset_meta = dict(classes='abcdefg')
        metric.process({}, [{key: value for key, value in sample.items() if key != 'gt_sem_seg'} for sample in samples])
        assert metric.evaluate(2) == {}
        found[kind] = {file.name: np.array(Image.open(file)).tolist() for file in (tmp_path / kind.__name__).iterdir()}
    assert found[FastIoUMetric] == found[IoUMetric] and sorted(found[IoUMetric]) == ['0.png', '1.png']


def test_mistakes_name_the_file():
    label, prediction = random_pair(0, 5)
    for bad, where, sentence in [
            (7, label, r'labels/0.png has the values 7, but there are 5 classes, so 0 to 4'),
            (-3, label, r'labels/0.png has the values -3'),
            (1000, label, r'labels/0.png has the values 1000'),
            (5, prediction, r'the prediction for labels/0.png has the values 5, but there are 5 classes')]:
        before, where[3, 3] = int(where[3, 3]), bad
        with pytest.raises(UserError, match=sentence):
            run(FastIoUMetric(), [(label, prediction)], 5)
        where[3, 3] = before
    with pytest.raises(UserError, match='labels/0.png is 40x50, but the prediction is 40x49'):
        run(FastIoUMetric(), [(label, prediction[:, :49])], 5)
    with pytest.raises(UserError, match="iou_metrics 'IoU' is unknown; expected mIoU, mDice, mFscore"):
        FastIoUMetric(iou_metrics=['IoU'])


def test_the_registry_and_a_config_find_it():
    from mmseg.registry import METRICS
    metric = METRICS.build(dict(type='mmseg.FastIoUMetric', iou_metrics=['mIoU'], prefix='val'))
    assert set(run(metric, [random_pair(0, 3)], 3)) == {'val/aAcc', 'val/mIoU', 'val/mAcc'}


def test_metrics_can_be_written_as_json():
    found = run(FastIoUMetric(per_class=True), [random_pair(0, 3)], 3)
    assert json.loads(json.dumps({key: float(value) for key, value in found.items()})) == found
