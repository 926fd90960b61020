"""The error breakdown against its authors' own package on real annotations, and on cases counted by hand."""
import numpy as np
import pytest
from noisy import noisy_detections
from pycocotools.coco import COCO

import convnext_dense.report.error_breakdown
from convnext_dense.report.error_breakdown import error_breakdown
from convnext_dense.report.overlaps import ImageOverlaps, load_overlaps

TYPES = ('Cls', 'Loc', 'Both', 'Dupe', 'Bkg', 'Miss')


@pytest.fixture(scope='module')
def val(real_data):
    return COCO(str(real_data / 'coco/annotations/instances_val2017.json'))


def tidecv_breakdown(truth, predictions, kind) -> tuple[float, dict, dict]:
    """AP, gains and counts by the package tidecv, per cent."""
    tidecv = pytest.importorskip('tidecv', reason='tidecv is not installed: pip install tidecv')
    shape = {'bbox': 'box', 'segm': 'mask'}[kind]
    annotated, found = tidecv.Data('truth'), tidecv.Data('found')
    categories = sorted(truth.cats)
    for image in truth.imgs:
        annotated.add_image(image, str(image))
        for item in truth.imgToAnns[image]:
            add = annotated.add_ignore_region if item['iscrowd'] else annotated.add_ground_truth
            add(image, item['category_id'], **{shape: item['bbox'] if kind == 'bbox' else truth.annToRLE(item)})
    for prediction in predictions:
        kept = prediction
        for i, (label, score) in enumerate(zip(kept['labels'], kept['scores'], strict=True)):
            x1, y1, x2, y2 = kept['bboxes'][i]
            place = [x1, y1, x2 - x1, y2 - y1] if kind == 'bbox' else kept['masks'][i]
            found.add_detection(prediction['img_id'], categories[label], score, **{shape: place})
    tide = tidecv.TIDE()
    run = tide.evaluate(annotated, found, mode=tidecv.TIDE.BOX if kind == 'bbox' else tidecv.TIDE.MASK)
    gains = {**run.fix_main_errors(), **run.fix_special_errors()}
    names = {'FalsePos': 'FP', 'FalseNeg': 'FN'}
    counts = {error.short_name: sum(1 for e in run.errors if type(e) is error and not (
        hasattr(e, 'pred') and e.pred['used'] is None)) for error in run.error_dict}
    return run.ap, {names.get(error.short_name, error.short_name): value for error, value in gains.items()}, counts


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_equal_to_the_authors_package_on_real_annotations(val, kind, monkeypatch):
    # tidecv samples recall at i / 100, COCO at linspace(0, 1, 101): some of them differ in the last bit
    monkeypatch.setattr(convnext_dense.report.error_breakdown, 'RECALLS', np.arange(101) / 100)
    predictions = noisy_detections(val, masks=kind == 'segm')
    assert {a['category_id'] for a in val.dataset['annotations'] if not a['iscrowd']} == set(val.cats)
    assert any(a['iscrowd'] for a in val.dataset['annotations'])
    ours = error_breakdown(load_overlaps(val, predictions, sorted(val.cats), kind), len(val.cats))
    ap, gains, counts = tidecv_breakdown(val, predictions, kind)
    print(f'\n{kind}: AP50 {100 * ours.ap:.3f} ours, {ap:.3f} tidecv; gains')
    for name in gains:
        print(f'  {name:4} {100 * ours.gains[name]:8.4f} {gains[name]:8.4f}  {ours.counts[name]}')
    assert 100 * ours.ap == pytest.approx(ap, abs=1e-9)
    assert {name: 100 * value for name, value in ours.gains.items()} == pytest.approx(gains, abs=1e-9)
    assert {name: ours.counts[name] for name in TYPES} == {name: counts[name] for name in TYPES}
    assert all(counts[name] > 5 for name in TYPES)


def overlaps(detections, objects, iou, crowds=(), crowd_overlap=()) -> ImageOverlaps:
    """detections: (label, score) pairs; objects, crowds: labels; iou, crowd_overlap: rows of each detection."""
    labels, scores = (np.array(values) for values in zip(*detections, strict=True)) if detections else [np.zeros(0)] * 2
    count = len(detections)
    return ImageOverlaps(1, labels.astype(int), scores, np.array(objects, int), np.full(len(objects), 0.1),
                 np.array(iou, float).reshape(count, len(objects)), np.array(crowds, int),
                 np.array(crowd_overlap, float).reshape(count, len(crowds)))


@pytest.mark.parametrize(('name', 'case'), [
    ('Cls', overlaps([(1, 0.9)], [0, 1], [[0.8, 0.0]])),
    ('Loc', overlaps([(0, 0.9)], [0, 1], [[0.3, 0.0]])),
    ('Both', overlaps([(1, 0.9)], [0, 1], [[0.3, 0.0]])),
    ('Dupe', overlaps([(0, 0.9), (0, 0.8)], [0, 1], [[0.8, 0.0], [0.7, 0.0]])),
    ('Bkg', overlaps([(0, 0.9)], [0, 1], [[0.05, 0.05]])),
    ('Bkg', overlaps([(0, 0.9)], [], [[]])),
])
def test_each_type(name, case):
    found = error_breakdown([case, overlaps([], [0, 1], [])], 2)
    assert {key: found.counts[key] for key in ('Cls', 'Loc', 'Both', 'Dupe', 'Bkg')} == {
        'Cls': 0, 'Loc': 0, 'Both': 0, 'Dupe': 0, 'Bkg': 0, name: 1}


def test_a_localisation_error_fixed_finds_the_object():
    """One class, two objects: one found (0.9), one found with IoU 0.3 (0.8): recall 1/2 at precision 1, then 2/2."""
    found = error_breakdown([overlaps([(0, 0.9), (0, 0.8)], [0, 0], [[0.9, 0.0], [0.0, 0.3]])], 1)
    half = 51 / 101  # samples of the recall from 0 to 0.5
    assert found.ap == pytest.approx(half)
    assert found.gains['Loc'] == found.gains['FN'] == pytest.approx(1 - half)
    assert found.gains['Miss'] == found.gains['FP'] == 0
    assert found.counts == {'Cls': 0, 'Loc': 1, 'Both': 0, 'Dupe': 0, 'Bkg': 0, 'Miss': 0, 'FP': 1, 'FN': 1}


def test_only_the_most_certain_of_two_errors_on_an_object_is_fixed():
    found = error_breakdown([overlaps([(0, 0.9), (0, 0.8)], [0], [[0.3], [0.4]])], 1)
    assert found.ap == 0 and found.gains['Loc'] == pytest.approx(1)


def test_missed_objects_without_any_detection():
    found = error_breakdown([overlaps([(0, 0.9)], [0, 0], [[0.9, 0.0]])], 1)
    assert found.gains['Miss'] == pytest.approx(1 - 51 / 101) and found.counts['Miss'] == 1


def test_a_detection_in_a_crowd_is_no_error():
    crowd = overlaps([(0, 0.9), (0, 0.8)], [0], [[0.0], [1.0]], crowds=[0], crowd_overlap=[[0.9], [0.0]])
    found = error_breakdown([crowd], 1)
    assert found.ap == pytest.approx(1) and found.counts['FP'] == 0 and found.gains['FP'] == 0


def test_classes_without_objects_do_not_count():
    found = error_breakdown([overlaps([(0, 0.9), (2, 0.8)], [0], [[1.0], [0.0]])], 3)
    assert found.ap == pytest.approx(1) and found.counts['Bkg'] == 1


def test_nothing_annotated_or_nothing_found():
    assert error_breakdown([overlaps([(0, 0.9)], [], [[]])], 1) is None
    found = error_breakdown([overlaps([], [0], [])], 1)
    assert found.ap == 0 and found.counts['Miss'] == 1 and found.gains['FP'] == 0
