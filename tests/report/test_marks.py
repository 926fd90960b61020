"""The box that a caption of the report means is the one that is marked, and numbers say what they rest on."""
import json
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from test_report_pages import rewrite_predictions, text_of

from convnext_dense.config import load_config
from convnext_dense.evaluation.prediction_file import read_predictions
from convnext_dense.inference.predictor import without_annotations
from convnext_dense.report import task_sections, write_report
from convnext_dense.report.det_results import DetectionResults
from convnext_dense.report.image_scores import CONFUSED_AREA, FALSE_POSITIVE, LARGE_MISS, choose
from convnext_dense.report.marking import close_up, largest_area
from convnext_dense.report.seg_results import SegmentationResults
from convnext_dense.report.work_dir import open_work_dir, own_input


def white_box(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 of the white line that was added to a picture."""
    rows, columns = np.nonzero((before != after).any(axis=2) & (after == 255).all(axis=2))
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_the_marked_box_is_the_one_of_the_caption(make_run):
    work = open_work_dir(make_run('one', 'det'))
    results = DetectionResults(work.test_set(), read_predictions(work.path / 'predictions.npz'))
    groups = choose(results.scores, 4)
    for one in groups[FALSE_POSITIVE] + groups[LARGE_MISS]:
        prediction = results.predictions[one.score.index]
        if one.mark[0] == FALSE_POSITIVE:  # all scores of an image differ
            name, score = re.fullmatch(r'(\w+) with score (.+)', one.caption).groups()
            index, = [i for i, value in enumerate(prediction['scores']) if f'{value:.2f}' == score
                      and results.names[prediction['labels'][i]] == name]
            box = prediction['bboxes'][index]
        else:
            name, share = re.fullmatch(r'(\w+), (.+) % of the image', one.caption).groups()
            box, = [np.array([x, y, x + w, y + h]) for item in results.ground_truth.imgToAnns[prediction['img_id']]
                    for x, y, w, h in [item['bbox']] if f'{100 * item["area"] / 64**2:.0f}' == share
                    and results.names[results.category_ids.index(item['category_id'])] == name]
        plain, marked = results.panels(one.score.index), results.panels(one.score.index, mark=one.mark)
        assert len(marked) == 3 and marked[2][0].startswith('close-up')
        for (_, before), (_, after) in zip(plain, marked, strict=False):
            factor = len(before) // 64
            found = white_box(before, after)
            inside = np.clip(np.asarray(box) * factor, 0, before.shape[1])
            assert np.abs(found - inside).max() <= 8  # the line is drawn around the box, 4 pixels wide
        assert min(marked[2][1].shape[:2]) >= 320


def test_the_largest_area_of_a_confusion_is_marked(make_run):
    work = open_work_dir(make_run('one', 'seg'))
    results = SegmentationResults(work.test_set(), read_predictions(work.path / 'predictions.npz'),
                                  work.cfg.test_dataloader.dataset.pipeline)
    for one in choose(results.scores, 2)[CONFUSED_AREA]:
        _, (true, wrong) = one.mark
        assert one.caption.startswith(f'{results.names[true]} predicted as {results.names[wrong]},')
        plain, marked = results.panels(one.score.index), results.panels(one.score.index, mark=one.mark)
        pixels = (results._annotated(one.score.index) == true) & (results._predicted(one.score.index) == wrong)
        factor = len(plain[0][1]) // 64
        found = white_box(plain[1][1], marked[1][1])
        assert np.abs(found - np.clip(largest_area(pixels) * factor, 0, plain[0][1].shape[1])).max() <= 8


def test_largest_area_is_that_of_a_flood_fill():
    pixels = np.random.default_rng(0).random((30, 40)) > 0.55
    left, best = pixels.astype(np.uint8), (0, None)
    for y, x in np.argwhere(pixels):
        if left[y, x] == 1:
            area, *_, (bx, by, width, height) = cv2.floodFill(left, None, (int(x), int(y)), 2, flags=8)
            best = max(best, (area, (bx, by, bx + width, by + height)))
    assert tuple(largest_area(pixels)) == best[1]


def test_a_close_up_shows_the_box_with_its_surroundings():
    picture = np.zeros((400, 600, 3), np.uint8)
    picture[100:120, 200:230] = 255
    part = close_up(picture, np.array([200.0, 100, 230, 120]))
    share = (part == 255).mean() / (picture == 255).mean()
    assert share == pytest.approx(1 / 0.12**2, rel=0.02)  # the whole box, in a window of 0.12 of the sides
    assert min(part.shape[:2]) >= 320 and part.shape[1] / part.shape[0] == pytest.approx(1.5)
    for corner in ((0, 0, 20, 20), (580, 380, 600, 400)):
        assert close_up(picture, np.array(corner, float)).shape == part.shape  # moved into the picture
    np.testing.assert_array_equal(close_up(picture, np.array([-5.0, -5, 700, 450])), picture)


def test_metrics_have_the_number_of_objects_beside_them(make_run, truth):
    folder = make_run('one', 'det')
    text = text_of(write_report([folder], folder / 'report.html', images=0))
    counts = Counter()
    for item in truth.anns.values():
        if not item['iscrowd']:
            counts['all'] += 1
            counts['small' if item['area'] <= 32**2 else 'medium' if item['area'] <= 96**2 else 'large'] += 1
    assert f'|{counts["all"]}|annotated objects|' in text
    for name, count in ((' AP', counts['all']), (' AP small objects', counts['small']),
                        (' AP medium objects', counts['medium'])):
        for kind in ('box', 'mask'):
            assert re.search(rf'\|{kind}{name}\|[\d.–]+\|{count}\|', text), (kind, name)
    few = [f'box AP {area} objects' for area in ('small', 'medium', 'large') if 0 < counts[area] < 20]
    assert all(name in text.partition('fewer than 20 objects')[0].rsplit('|', 1)[-1] for name in few)
    assert '|10|test images|' in text and '10.00' not in text


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_flops_are_for_the_size_that_the_network_gets(task, make_run):
    work = open_work_dir(make_run('one', task))
    dataset = work.test_set()
    file = dataset.get_data_info(0)['img_path']
    with DefaultScope.overwrite_default_scope(work.cfg.default_scope):
        pipeline = Compose(without_annotations(work.cfg.test_dataloader.dataset.pipeline))
        height, width = pipeline(dict(img_path=file, img_id=0))['inputs'].shape[-2:]
    divisor = 32 if task == 'det' else 1
    expected = tuple(-(-side // divisor) * divisor for side in (width, height))
    assert own_input(work.cfg, file) == expected
    assert own_input(work.cfg, 'missing.jpg') is None
    text = text_of(write_report([work.path], work.path / 'report.html', images=0))
    assert f'for an input of {expected[0]} x {expected[1]} pixels, as the first test image has it' in text


def test_input_of_sliding_windows(make_run):
    cfg = load_config('seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py')
    cfg.model.test_cfg = dict(mode='slide', crop_size=(512, 640), stride=(341, 426))
    assert own_input(cfg, 'any.jpg') == (640, 512)


def one_class(folder: Path, truth) -> None:
    """Make everything in a work dir of the shapes a circle."""
    config = next(folder.glob('*.py'))
    cfg = load_config(str(config))
    data = json.loads(Path(cfg.test_dataloader.dataset.data_root, cfg.test_dataloader.dataset.ann_file).read_text())
    data['categories'] = [item for item in data['categories'] if item['name'] == 'circle']
    for item in data['annotations']:
        item['category_id'] = data['categories'][0]['id']
    (folder / 'one.json').write_text(json.dumps(data))
    cfg.test_dataloader.dataset.ann_file = str((folder / 'one.json').resolve())
    cfg.test_dataloader.dataset.metainfo = dict(classes=('circle',))
    for head in (cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = 1
    for name in ('val_evaluator', 'test_evaluator'):
        cfg[name].ann_file = cfg.test_dataloader.dataset.ann_file
    cfg.dump(config)
    rewrite_predictions(folder, lambda prediction: prediction.update(labels=prediction['labels'] * 0))


def test_a_page_about_one_class_has_no_comparison_of_classes(make_run, truth):
    folder = make_run('one', 'det')
    one_class(folder, truth)
    text = text_of(write_report([folder], folder / 'report.html', images=1))
    assert 'circle is the only class' in text and '|Found and missed|' in text
    for absent in ('Confusion', 'Most confused', 'every class', 'Cls:', 'Both:', 'the best first'):
        assert absent not in text, absent
    annotated = sum(not item['iscrowd'] for item in truth.anns.values())
    found, missed = (int(re.search(rf'\|{name}\|(\d+)\|', text)[1]) for name in ('found', 'missed'))
    assert found + missed == annotated and f'|annotated|{annotated}|' in text


def test_curves_are_labelled_with_the_area_below_them(make_run, monkeypatch):
    lines = []
    monkeypatch.setattr(task_sections, 'plot_lines',
                        lambda drawn, *rest: lines.extend(drawn) or cv2.imencode('.png', np.zeros((2, 2)))[1].tobytes())
    folder = make_run('one', 'det')
    write_report([folder], folder / 'report.html', images=0)
    assert len(lines) == 3 + 3 + 3  # boxes and masks at three IoUs, three classes
    for label, _, precision in lines:
        assert float(re.search(r'AP ([\d.]+)$', label)[1]) == pytest.approx(100 * np.mean(precision), abs=0.051), label
