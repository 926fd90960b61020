"""Confusion matrices and the metrics from them against plain loops and mmseg's metric; which images are shown."""
import numpy as np
import pytest
import torch

from convnext_dense.evaluation.confusion import confusion_matrix
from convnext_dense.report.confusion import (
    Agreement,
    detection_confusion,
    most_confused,
    row_shares,
)
from convnext_dense.report.image_scores import (
    CONFUSED_AREA,
    FALSE_POSITIVE,
    LARGE_MISS,
    ImageScore,
    Surprise,
    choose,
    detection_score,
    label_score,
    most_different,
)
from convnext_dense.report.overlaps import ImageOverlaps

NAMES = ['a', 'b', 'c']


def random_overlaps(random, classes=3) -> ImageOverlaps:
    found, objects, crowds = random.integers(0, 8, 3)
    return ImageOverlaps(1, random.integers(0, classes, found), -np.sort(-random.random(found)),
                 random.integers(0, classes, objects), random.random(objects), random.random((found, objects)),
                 random.integers(0, classes, crowds), random.random((found, crowds)))


def confusion_by_loop(image, classes) -> np.ndarray:
    matrix, taken = np.zeros((classes + 1, classes + 1), int), set()
    for i, score in enumerate(image.scores):
        if score < 0.3:
            continue
        best = None
        for j in range(len(image.gt_labels)):
            if j not in taken and image.iou[i, j] >= 0.5 and (best is None or image.iou[i, j] > image.iou[i, best]):
                best = j
        if best is not None:
            taken.add(best)
            matrix[image.gt_labels[best], image.labels[i]] += 1
        elif not any(label == image.labels[i] and overlap > 0.5
                     for label, overlap in zip(image.crowd_labels, image.crowd_overlap[i], strict=True)):
            matrix[classes, image.labels[i]] += 1
    for j, label in enumerate(image.gt_labels):
        if j not in taken:
            matrix[label, classes] += 1
    return matrix


def f1_by_loop(image) -> float | None:
    own = ImageOverlaps(**{**vars(image), 'iou': image.iou * (image.labels[:, None] == image.gt_labels)})
    matrix = confusion_by_loop(own, 3)
    hits, missed, false = np.trace(matrix[:3, :3]), matrix[:3, 3].sum(), matrix[3, :3].sum()
    return hits / (hits + (missed + false) / 2) if hits + missed + false else None


def test_detection_confusion_equals_a_loop():
    random = np.random.default_rng(0)
    images = [random_overlaps(random) for _ in range(300)]
    wanted = sum(confusion_by_loop(image, 3) for image in images)
    assert (detection_confusion(images, 3) == wanted).all() and (wanted.ravel()[:-1] > 0).all()


def test_f1_of_an_image_equals_a_loop():
    random = np.random.default_rng(1)
    images = [random_overlaps(random) for _ in range(300)]
    for image in images:
        score, wanted = detection_score(0, image, NAMES), f1_by_loop(image)
        assert (score is None) == (wanted is None)
        assert score is None or score.quality == pytest.approx(wanted)


def test_surprises_of_detections():
    image = ImageOverlaps(1, np.array([0, 1, 2]), np.array([0.9, 0.8, 0.2]), np.array([0, 2, 2]),
                          np.array([0.1, 0.3, 0.2]), np.array([[0.9, 0, 0], [0, 0, 0], [0, 0, 0]]), np.zeros(0, int),
                          np.zeros((3, 0)))
    score = detection_score(4, image, NAMES)
    assert score.index == 4 and score.summary == 'F1 0.40: 1 found, 2 missed, 1 false'
    assert score.surprises[FALSE_POSITIVE] == (0.8, 'b with score 0.80', 1)
    assert score.surprises[LARGE_MISS] == (0.3, 'c, 30 % of the image', 1)


def random_labels(random, size=(20, 30), classes=5):
    truth = random.integers(0, classes - 1, size)  # the last class is predicted only
    truth[random.random(size) < 0.1] = 255
    predicted = np.where(random.random(size) < 0.6, np.where(truth == 255, 0, truth), random.integers(0, classes, size))
    return truth.astype(np.uint8), predicted


def test_metrics_of_a_label_confusion_matrix_equal_mmseg():
    metric = pytest.importorskip('mmseg.evaluation').IoUMetric
    random = np.random.default_rng(0)
    ours, areas = 0, []
    for _ in range(5):
        truth, predicted = random_labels(random)
        ours = ours + confusion_matrix(torch.tensor(truth), torch.tensor(predicted), 6).numpy()
        areas.append(metric.intersect_and_union(torch.tensor(predicted), torch.tensor(truth), 6, 255))
    wanted = metric.total_area_to_metrics(*(sum(area) for area in zip(*areas, strict=True)), ['mIoU'])
    found = Agreement.of(ours)
    np.testing.assert_allclose(found.iou, wanted['IoU'], rtol=1e-6)  # mmseg divides in float32
    np.testing.assert_allclose(found.accuracy, wanted['Acc'], rtol=1e-6)
    assert np.isnan(found.iou[5]) and found.iou[4] == 0 and np.isnan(found.accuracy[4])
    assert found.all_accuracy == pytest.approx(wanted['aAcc'], rel=1e-6)
    assert Agreement.mean(found.iou) == pytest.approx(np.nanmean(wanted['IoU']), rel=1e-6)


def test_shares_and_the_most_confused_pairs():
    matrix = np.array([[5, 3, 2], [0, 0, 0], [4, 0, 1]])
    np.testing.assert_array_equal(row_shares(matrix), [[0.5, 0.3, 0.2], [np.nan] * 3, [0.8, 0, 0.2]])
    assert most_confused(matrix, 2) == [(2, 0), (0, 1)]
    assert most_confused(matrix, 9) == [(2, 0), (0, 1), (0, 2)]


def test_score_of_a_label_map():
    score = label_score(3, np.array([[60, 20, 0], [0, 20, 0], [0, 0, 0]]), NAMES)
    assert score.quality == pytest.approx((60 / 80 + 20 / 40) / 2)
    assert score.surprises[CONFUSED_AREA] == (0.2, 'a predicted as b, 20 %', (0, 1))
    assert label_score(0, np.zeros((3, 3), int), NAMES) is None
    assert label_score(0, np.diag([1, 2, 3]), NAMES).surprises == {}


def test_chosen_images():
    small, large = Surprise(0.1, 'small', 7), Surprise(0.6, 'large', 5)
    scores = [ImageScore(0, 0.5, 1, 'even'), ImageScore(1, 1.0, 1, 'few right', {LARGE_MISS: small}),
              ImageScore(2, 1.0, 4, 'many right'), ImageScore(3, 0.0, 2, 'wrong', {LARGE_MISS: large})]
    chosen = {group: [(score.index, text) for score, text, _ in found] for group, found in choose(scores, 2).items()}
    assert chosen == {'best': [(2, 'many right'), (1, 'few right')], 'worst': [(3, 'wrong'), (0, 'even')],
                      LARGE_MISS: [(3, 'large'), (1, 'small')]}
    assert [one.score.index for one in choose(scores, 3)['worst']] == [3]  # the others are the best already
    assert [one.score.index for one in choose(scores[1:], 1)['worst']] == [3]
    assert [one.mark for one in choose(scores, 2)[LARGE_MISS]] == [(LARGE_MISS, 5), (LARGE_MISS, 7)]
    assert all(one.mark is None for one in choose(scores, 2)['best'])
    assert 'worst' not in choose(scores[1:3], 1)  # nothing is wrong with what is left
    other = [ImageScore(0, 0.6, 1, ''), ImageScore(2, 0.2, 4, ''), ImageScore(3, 0.0, 2, '')]
    assert [(a.index, b.quality) for a, b in most_different(scores, other, 5)] == [(2, 0.2), (0, 0.6)]
