"""Curves from mmengine's log, masks of every COCO form, and the page that holds pictures."""
import base64
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from convnext_dense.errors import UserError
from convnext_dense.visualization import page
from convnext_dense.visualization.curves import Curve, losses_in, plot_curves, read_scalars
from convnext_dense.visualization.predictions import encoded_masks


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


def test_lines_cut_off_by_a_kill_are_left_out(tmp_path):
    log(tmp_path, '20260101_000000', [{'lr': 1, 'loss': 3.0, 'iter': 1, 'step': 1}])
    with (tmp_path / '20260101_000000/vis_data/scalars.json').open('ab') as file:
        file.write(b'{"lr": 1, "loss": 2.0, "it\n17\n[\n{"step": "x", "loss": 9.0}\n\xff\xfe\n'
                   b'{"lr": 1, "loss": 2.0, "iter": 2, "step": 2}\n{"lr"')
    assert read_scalars(tmp_path)['loss'] == Curve([1, 2], [3.0, 2.0])


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
    np.testing.assert_array_equal(encoded_masks([forms[form]], (20, 30))[0], mask)


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


def test_page_fetches_nothing(tmp_path):
    plot = plot_curves({'a': Curve([0, 100], [0.2, 0.8])}, ['a'], 't', 'y', (0, 1))
    panel = page.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    html = page.render_page('A title', 'lead', [
        page.KeyMetrics([('0.517', 'box AP')]), page.Details('more', [page.Code('x = 1')]),
        page.Legend([('triangle', (1, 2, 3))]),
        page.Section('One', [page.Text('A note.'), page.Heading('two'), page.Bars(['AP'], [('cat', [50.0])], 100),
                        page.Table(('m', 'v'), [('AP', 0.5)]),
                        page.Pictures([page.Picture(plot, 'caption', 'alt'),
                                       page.Panels([('ground truth', panel)], 'name')])])])
    page.write_text(tmp_path / 'sub/index.html', html)
    assert [file.name for file in (tmp_path / 'sub').iterdir()] == ['index.html']
    references = References()
    references.feed((tmp_path / 'sub/index.html').read_text())
    assert references.open_tags == []
    assert len([r for r in references.found if r.startswith('data:image/')]) == 2
    assert all(r.startswith('data:') for r in references.found)
    assert not re.search(r'https?://|url\(|@import|<script', re.sub(r'base64,[^"]*', '', html))
    for text in ('0.517', 'A note.', 'triangle', 'x = 1', '50.0'):
        assert text in html


def test_pictures_survive_embedding():
    gradient = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    gradient[..., 2] = 0
    html = page.Pictures([page.Picture(page.encode_jpeg(gradient), 'caption', 'alt')]).html()
    data = base64.b64decode(re.search(r'base64,([^"]+)"', html)[1])
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - gradient).mean() < 4


def test_text_from_outside_cannot_become_markup():
    section = page.Section('<b>', [page.Text('<i>'), page.Table(('<u>',), [('<s>', 0.5)])])
    html = page.render_page('<script>1</script>', '"a" & b', [section])
    assert not re.search(r'<(script|b|i|u|s)>', html)
    assert '&lt;script&gt;1' in html and '0.500' in html
