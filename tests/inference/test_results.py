"""`Detections` and `Segmentation`: indexing, drawing, saving and other packages' forms, without a model."""
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from convnext_dense.errors import UserError
from convnext_dense.inference import results
from convnext_dense.inference.results import Detections, Segmentation
from convnext_dense.utils.run_lengths import EncodedMasks, encode_masks
from convnext_dense.visualization.draw import draw_instances, draw_segmentation

CLASSES, COLOURS = ('cat', 'dog', 'owl'), [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def found() -> Detections:
    """Three objects: dog 0.9, cat 0.8, dog 0.4, each mask a rectangle a little smaller than its box."""
    boxes = np.array([[2, 3, 20, 30], [30, 5, 50, 25], [10, 32, 25, 39]], np.float32)
    masks = np.zeros((3, 40, 60), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1 + 1:y2, x1 + 1:x2] = True
    return Detections(np.array([1, 0, 1]), boxes, masks, np.array([0.9, 0.8, 0.4], np.float32), CLASSES, (40, 60),
                      COLOURS, IMAGE)


@pytest.fixture
def labels() -> Segmentation:
    """Half cat, three eighths owl, an eighth ignored."""
    values = np.zeros((40, 60), np.uint8)
    values[20:], values[35:] = 2, 255
    return Segmentation(values, CLASSES, COLOURS, IMAGE)


def test_objects_are_indexed_like_arrays(found):
    assert len(found) == 3 and found.names == ['dog', 'cat', 'dog']
    for which, indices in ((1, [1]), (-1, [2]), (slice(1, None), [1, 2]), (slice(None, None, -1), [2, 1, 0]),
                           ([2, 0], [2, 0]), ([], []), (found.scores > 0.5, [0, 1]), ('dog', [0, 2]), ('owl', []),
                           (np.int64(2), [2]), ([True, False, True], [0, 2])):
        part = found[which]
        for name in ('labels', 'boxes', 'masks', 'scores'):
            np.testing.assert_array_equal(getattr(part, name), getattr(found, name)[indices])
        assert (part.classes, part.size, len(part)) == (CLASSES, (40, 60), len(indices))
    assert [one.names for one in found] == [['dog'], ['cat'], ['dog']]
    for which in (3, -4, [3], [True, False]):
        with pytest.raises(IndexError):
            found[which]
    with pytest.raises(UserError, match="no class 'cow': expected one of cat, dog, owl"):
        found['cow']
    boxes_only = Detections(found.labels, found.boxes, None, found.scores, CLASSES, (40, 60))
    assert boxes_only[:2].masks is None


def test_texts_are_short(found, labels):
    assert repr(found) == 'Detections(3 objects in 60x40: dog 2, cat 1)'
    assert repr(found[[]]) == 'Detections(0 objects in 60x40)'
    assert repr(labels) == 'Segmentation(2 classes in 60x40: cat 50%, owl 38%)'


def test_classes_of_a_label_map(labels):
    assert len(labels) == 2 and list(labels) == ['cat', 'owl'] and 'dog' not in labels and 'owl' in labels
    assert labels.shares == {'cat': 0.5, 'owl': 0.375}
    np.testing.assert_array_equal(labels['owl'], labels.labels == 2)
    np.testing.assert_array_equal(labels[0], labels.labels == 0)
    assert not labels['dog'].any()
    with pytest.raises(UserError, match="no class 'cow'"):
        labels['cow']
    with pytest.raises(IndexError):
        labels[3]


def test_pictures_are_those_of_the_draw_module(found, labels, tmp_path):
    expected = draw_instances(IMAGE, found, CLASSES, COLOURS, hide=['scores'])
    np.testing.assert_array_equal(found.draw(hide=['scores']), expected)
    np.testing.assert_array_equal(np.array(Image.open(found.save(tmp_path / 'a/found.png', hide=['scores']))), expected)
    assert not np.array_equal(found.draw(), expected)
    np.testing.assert_array_equal(labels.draw(opacity=0.2), draw_segmentation(IMAGE, labels.labels, COLOURS, 0.2))
    Image.fromarray(IMAGE).save(tmp_path / 'image.png')
    for image in (tmp_path / 'image.png', Image.fromarray(IMAGE), IMAGE):
        found.image = None
        np.testing.assert_array_equal(found.draw(image, hide=['scores']), expected)
    with pytest.raises(UserError, match='no image to draw on'):
        found.draw()
    with pytest.raises(UserError, match=r'expected .json, or a picture \(.jpg'):
        labels.save(tmp_path / 'labels.txt')
    for options, message in ((dict(hide='scores'), 'expected a list of boxes'), (dict(hide=['names']), 'expected a'),
                             (dict(colour_by='score'), 'expected one of class, instance')):
        with pytest.raises(UserError, match=message):
            found.draw(IMAGE, **options)


def test_coco_reads_what_was_saved(found, labels, tmp_path):
    coco = COCO(str(found.save(tmp_path / 'found.json')))
    assert [coco.cats[item['category_id']]['name'] for item in coco.anns.values()] == found.names
    for item, box, mask in zip(coco.anns.values(), found.boxes, found.masks, strict=True):
        x, y, width, height = item['bbox']
        assert (x, y, x + width, y + height) == tuple(box) and item['area'] == mask.sum()
        np.testing.assert_array_equal(coco.annToMask(item), mask)
    numbered = found.to_coco(image_id=7, first_id=5)
    assert [(item['image_id'], item['id']) for item in numbered] == [(7, 5), (7, 6), (7, 7)]
    written = json.loads(labels.save(tmp_path / 'labels.json').read_text())
    assert written['images'] == [dict(id=1, file_name='', width=60, height=40)]
    for item in written['annotations']:
        mask = labels[item['category_id'] - 1]
        np.testing.assert_array_equal(coco_mask.decode(item['segmentation']), mask)
        assert item['bbox'] == list(coco_mask.toBbox(item['segmentation'])) and item['area'] == mask.sum()


def test_supervision_takes_the_results(found, labels):
    supervision = pytest.importorskip('supervision')
    converted = found.to_supervision()
    assert isinstance(converted, supervision.Detections) and len(converted) == 3
    np.testing.assert_array_equal(converted.xyxy, found.boxes)
    np.testing.assert_array_equal(converted[converted.confidence > 0.5].class_id, [1, 0])
    assert list(converted.data['class_name']) == found.names
    np.testing.assert_array_equal(np.asarray(converted.mask), found.masks)
    assert len(found[[]].to_supervision()) == 0
    converted = labels.to_supervision()
    np.testing.assert_array_equal(converted.area, [labels[name].sum() for name in labels])


def test_without_supervision_a_sentence_says_what_to_install(found, labels, monkeypatch):
    monkeypatch.setitem(sys.modules, 'supervision', None)
    for result in (found, labels):
        with pytest.raises(UserError, match='pip install supervision'):
            result.to_supervision()


def test_results_need_no_torch():
    """What is deployed without the training stack draws and saves the same way."""
    source = 'import sys, types; package = types.ModuleType("convnext_dense"); package.__path__ = [sys.argv[1]]\n' \
             'sys.modules["convnext_dense"] = package\n' \
             'import importlib; importlib.import_module("convnext_dense.inference.results")\n' \
             'importlib.import_module("convnext_dense.inference.arrays")\n' \
             'print([name for name in ("torch", "mmengine", "mmcv") if name in sys.modules])'
    package = next(iter(__import__('convnext_dense').__path__))
    assert results.__file__.startswith(package)
    done = subprocess.run([sys.executable, '-c', source, package], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == '[]'


def test_run_length_masks_give_what_arrays_give(found):
    """Of images that were predicted in tiles."""
    encoded = replace(found, masks=EncodedMasks(encode_masks(found.masks, 0, 0, found.size), found.size))
    assert encoded.to_coco(3, 5) == found.to_coco(3, 5)
    for which in (1, [], [2, 0], slice(None, None, -1), found.scores > 0.5, 'dog'):
        np.testing.assert_array_equal(np.asarray(encoded[which].masks), found[which].masks)
    np.testing.assert_array_equal(encoded.draw(), found.draw())
