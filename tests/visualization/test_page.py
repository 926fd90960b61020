"""Curves from mmengine's log, predictions from the test tool's file, and the page that holds them."""
import base64
import json
import pickle
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from convnext_dense.datasets.shapes import ShapesParams, generate_shapes, label_map_of, scene_of
from convnext_dense.datasets.shapes_render import CLASSES, PALETTE, SEG_PALETTE
from convnext_dense.errors import UserError
from convnext_dense.visualization.curves import Curve, losses_in, plot_curves, read_scalars
from convnext_dense.visualization.page import (
    KeyFigures,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    encode_jpeg,
    render_page,
    write_text,
)
from convnext_dense.visualization.predictions import decode_masks, read_label_map
from convnext_dense.visualization.run_page import Run, detection_samples, run_section, segmentation_samples

PARAMS = ShapesParams(train=1, val=3, size=64)


def log(work_dir, stamp, rows):
    folder = work_dir / stamp / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(json.dumps(row) + '\n' for row in rows))


def test_epoch_based_log_puts_evaluations_at_the_iteration_where_their_epoch_ended(tmp_path):
    log(tmp_path, '20260101_000000', [
        {'lr': 0.1, 'loss': 3.0, 'epoch': 1, 'iter': 10, 'step': 10},
        {'lr': 0.1, 'loss': 2.0, 'epoch': 1, 'iter': 20, 'step': 20},
        {'coco/bbox_mAP': 0.25, 'step': 1},
        {'lr': 0.1, 'loss': 1.5, 'epoch': 2, 'iter': 40, 'step': 40},
        {'coco/bbox_mAP': 0.5, 'step': 2}])
    curves = read_scalars(tmp_path)
    assert curves['loss'] == Curve([10, 20, 40], [3.0, 2.0, 1.5])
    assert curves['coco/bbox_mAP'] == Curve([20, 40], [0.25, 0.5])


def test_a_resumed_run_replaces_what_it_repeats(tmp_path):
    log(tmp_path, '20260101_000000', [{'lr': 1, 'loss': 3.0, 'iter': 1, 'step': 1},
                                      {'lr': 1, 'loss': 9.0, 'iter': 2, 'step': 2}])
    log(tmp_path, '20260101_000500', [{'lr': 1, 'loss': 2.0, 'iter': 2, 'step': 2},
                                      {'lr': 1, 'loss': 1.0, 'iter': 3, 'step': 3}, {'mIoU': 50.0, 'step': 3}])
    curves = read_scalars(tmp_path)
    assert curves['loss'] == Curve([1, 2, 3], [3.0, 2.0, 1.0])
    assert curves['mIoU'] == Curve([3], [50.0])


def test_no_log_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match='no training log'):
        read_scalars(tmp_path)


def test_losses_come_total_first():
    assert losses_in(dict.fromkeys(['lr', 'decode.loss_ce', 'loss', 'loss_mask', 'acc'])) == [
        'loss', 'decode.loss_ce', 'loss_mask']


def test_plot_draws_the_curve_where_its_values_are():
    flat = [plot_curves({'a': Curve([0, 100], [value, value])}, ['a'], 't', 'y', (0, 1)) for value in (0.2, 0.8)]
    rows = []
    for data in flat:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        column = picture[:, picture.shape[1] // 2].astype(int)
        rows.append(np.nonzero(np.abs(column - (0x00, 0x72, 0xb2)).sum(axis=1) < 30)[0].mean())
    assert picture.shape == (585, 900, 3)
    assert rows[0] - rows[1] > 200  # 0.2 is drawn below 0.8


@pytest.mark.parametrize('form', ['polygon', 'list', 'string', 'bytes'])
def test_masks_of_every_coco_form(form):
    mask = np.zeros((20, 30), bool)
    mask[5:15, 10:25] = True
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    forms = {'polygon': [[10, 5, 25, 5, 25, 15, 10, 15]],
             'list': {'size': [20, 30], 'counts': [205, *([10, 10] * 14), 10, 105]},
             'string': {'size': [20, 30], 'counts': rle['counts'].decode()}, 'bytes': rle}
    np.testing.assert_array_equal(decode_masks([forms[form]], (20, 30))[0], mask)


def test_label_maps_reduce_zero(tmp_path):
    cv2.imwrite(str(tmp_path / 'm.png'), np.array([[0, 1, 4]], np.uint8))
    assert read_label_map(tmp_path / 'm.png', True).tolist() == [[255, 0, 3]]
    assert read_label_map(tmp_path / 'm.png', False).tolist() == [[0, 1, 4]]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Two finished runs whose predictions are the annotations themselves, in the test tool's formats."""
    root = tmp_path_factory.mktemp('runs')
    generate_shapes(root / 'data', PARAMS)
    det, seg = [], []
    for index in range(PARAMS.val):
        scene = scene_of(PARAMS, 'val', index)
        rles = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in scene.masks]
        boxes = np.array([coco_mask.toBbox(rle) for rle in rles])
        boxes[:, 2:] += boxes[:, :2]
        det.append({'img_path': str(root / f'data/coco/val2017/{index + 1:012d}.jpg'), 'ori_shape': (64, 64),
                    'pred_instances': {'labels': torch.tensor(scene.labels), 'bboxes': torch.tensor(boxes),
                                       'scores': torch.full((len(rles),), 0.99), 'masks': rles}})
        seg.append({'img_path': str(root / f'data/ade/images/validation/ADE_val_{index + 1:08d}.jpg'),
                    'ori_shape': (64, 64),
                    'pred_sem_seg': {'data': torch.tensor(label_map_of(scene).astype(int) - 1)[None]}})
    made = {}
    for name, predictions, metrics, key in (('det', det, {'coco/bbox_mAP': 0.517, 'coco/segm_mAP': 0.623}, 'loss_cls'),
                                            ('seg', seg, {'mIoU': 91.25}, 'decode.loss_ce')):
        folder = root / name
        log(folder, '20260101_000000', [{'lr': 1, 'loss': 3.0, key: 2.0, 'iter': i, 'step': i} for i in (1, 2)]
            + [{**metrics, 'step': 2}])
        (folder / 'metrics.json').write_text(json.dumps(metrics))
        (folder / 'predictions.pkl').write_bytes(pickle.dumps(predictions))
        made[name] = Run(name, f'{name}/config.py', folder, folder / 'metrics.json', folder / 'predictions.pkl', 12.3,
                         list(metrics), 'metric', (0, 1))
    return root, made



def test_perfect_predictions_look_like_the_ground_truth(runs):
    root, made = runs
    samples = segmentation_samples(made['seg'].predictions_file, root / 'data/ade/annotations/validation',
                                   SEG_PALETTE, 2)
    assert [sample.name for sample in samples] == ['ADE_val_00000001.jpg', 'ADE_val_00000002.jpg']
    for sample in samples:
        (_, truth), (_, predicted) = sample.panels
        np.testing.assert_array_equal(truth, predicted)
    samples = detection_samples(made['det'].predictions_file, root / 'data/coco/annotations/instances_val2017.json',
                                CLASSES, PALETTE, 3)
    assert len(samples) == 3
    for sample in samples:  # the same masks and boxes; only the tags differ, by the scores
        (_, truth), (_, predicted) = sample.panels
        assert 0 < (truth != predicted).any(axis=2).mean() < 0.15


def test_wrong_predictions_look_different(runs, tmp_path):
    root, made = runs
    predictions = pickle.loads(made['seg'].predictions_file.read_bytes())
    predictions[0]['pred_sem_seg']['data'][:] = 2  # all square
    (tmp_path / 'wrong.pkl').write_bytes(pickle.dumps(predictions))
    sample = segmentation_samples(tmp_path / 'wrong.pkl', root / 'data/ade/annotations/validation', SEG_PALETTE, 1)[0]
    (_, truth), (_, predicted) = sample.panels
    squares = (label_map_of(scene_of(PARAMS, 'val', 0)) == 3).repeat(8, 0).repeat(8, 1)
    np.testing.assert_array_equal((truth == predicted).all(axis=2), squares)


class References(HTMLParser):
    """Collects everything that a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.found, self.open_tags = [], []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ('src', 'href', 'srcset', 'action', 'data')]
        if tag not in ('meta', 'link', 'img', 'br'):
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag


def test_page_holds_the_numbers_and_fetches_nothing(runs, tmp_path):
    root, made = runs
    samples = detection_samples(made['det'].predictions_file, root / 'data/coco/annotations/instances_val2017.json',
                                CLASSES, PALETTE, 2)
    legend = list(zip(CLASSES, PALETTE, strict=True))
    html = render_page('A title', 'lead', [KeyFigures([('0.517', 'box AP')]),
                                           run_section(made['det'], samples, legend, 'A note.'),
                                           run_section(made['seg'], [], [], 'Another.')])
    write_text(tmp_path / 'sub/index.html', html)
    assert [file.name for file in (tmp_path / 'sub').iterdir()] == ['index.html']
    references = References()
    references.feed((tmp_path / 'sub/index.html').read_text())
    assert references.open_tags == []
    assert len([r for r in references.found if r.startswith('data:image/')]) == 2 + 2 + 2 * 2  # plots, plots, panels
    assert all(r.startswith('data:') for r in references.found)
    assert not re.search(r'https?://|url\(|@import|<script', re.sub(r'base64,[^"]*', '', html))
    for text in ('0.517', '0.623', '91.250', 'det/config.py', 'seg/config.py', '12 seconds', 'A note.', 'triangle'):
        assert text in html


def test_pictures_survive_embedding():
    gradient = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    gradient[..., 2] = 0
    html = Pictures([Picture(encode_jpeg(gradient), 'caption', 'alt')]).html()
    data = base64.b64decode(re.search(r'base64,([^"]+)"', html)[1])
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - gradient).mean() < 4


def test_text_from_outside_cannot_become_markup():
    section = Section('<b>', [Text('<i>'), Table(('<u>',), [('<s>', 0.5)])])
    html = render_page('<script>1</script>', '"a" & b', [section])
    assert not re.search(r'<(script|b|i|u|s)>', html)
    assert '&lt;script&gt;1' in html and '0.500' in html


def test_a_metric_that_was_not_measured_is_one_sentence(runs):
    with pytest.raises(UserError, match='no value for coco/nothing'):
        runs[1]['det'].metric('coco/nothing')
