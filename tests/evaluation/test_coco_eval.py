"""AP and AR equal pycocotools: on the published reference, on real ground truth, on the special cases."""
import json
import math
import re

import numpy as np
import pytest
from coco_cases import CASES, indexed, pycocotools_says, random_case

from convnext_dense.benchmark.detections import enlarge, noisy_detections
from convnext_dense.errors import UserError
from convnext_dense.evaluation.coco_eval import RECALLS, evaluate, mask_areas

KINDS = ('bbox', 'segm')
TOLERANCE = 1e-10


def difference(ours: float, theirs: float) -> float:
    """0 where both say that there is no ground truth: nan here, -1 in pycocotools."""
    return 0.0 if math.isnan(ours) and theirs == -1 else abs(ours - theirs)


def compare(content, detections, kind, backend='faster', **params) -> float:
    """Largest difference to pycocotools over the twelve figures and every point of the curves."""
    theirs = pycocotools_says(content, detections, kind, **params)
    names = dict(maxDets='max_dets', iouThrs='iou_thrs', useCats='use_cats')
    ours = evaluate(indexed(content), detections, kind, backend=backend,
                    **{names[name]: value for name, value in params.items()})
    figures = [difference(*pair) for pair in zip(ours.stats().values(), theirs.stats, strict=True)]
    curves = [np.abs(getattr(ours, name) - theirs.eval[name]).max() for name in ('precision', 'recall', 'scores')]
    return max(figures + curves)


@pytest.fixture(scope='session')
def val2014(real_data):
    """Ground truth, detections by kind, and expected figures by kind of the published reference set."""
    folder = real_data / 'coco_eval_reference'
    detections = {kind: json.loads((folder / f'instances_val2014_fake{kind}100_results.json').read_text())
                  for kind in KINDS}
    return (json.loads((folder / 'instances_val2014_100.json').read_text()), detections,
            json.loads((folder / 'expected_pycocotools_stats.json').read_text()),
            (folder / 'val2014_fake_eval_res.txt').read_text())


@pytest.mark.parametrize('backend', ['faster', 'pycocotools'])
def test_published_reference_set(val2014, backend):
    content, detections, expected, table = val2014
    largest = 0
    for kind in KINDS:
        stats = list(evaluate(indexed(content), detections[kind], kind, backend=backend).stats().values())
        largest = max(largest, *(abs(a - b) for a, b in zip(stats, expected[kind], strict=True)))
        section = table.split(f'type={kind}')[1].split('type=')[0]
        published = re.findall(r'= (\d\.\d{3})\n', section)
        assert [f'{value:.3f}' for value in stats] == published and len(published) == 12
    print(f'\n{backend}: largest difference {largest:.1e} over 24 published figures')
    assert largest <= TOLERANCE


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('images', [40, pytest.param(206, marks=pytest.mark.slow)])
def test_real_ground_truth_with_noisy_detections(real_data, kind, images):
    content = enlarge(json.loads((real_data / 'coco/annotations/instances_val2017.json').read_text()), images)
    detections = noisy_detections(content, per_image=50)
    largest = compare(content, detections, kind)
    print(f'\n{kind}: largest difference {largest:.1e}, {images} images, {len(content["annotations"])} objects, '
          f'{len(detections)} detections')
    assert largest <= TOLERANCE
    assert evaluate(indexed(content), detections, kind).ap() > 0.05, 'noise that matches nothing compares nothing'


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.__name__)
def test_special_cases(case):
    settings = [{}, dict(maxDets=[100, 300, 1000], iouThrs=np.array([0.3, 0.5, 0.75]))]
    differences = [compare(*case(), kind, **setting) for kind in KINDS for setting in settings]
    differences.append(compare(*case(), 'bbox', useCats=0))
    print(f'\n{case.__name__}: largest difference {max(differences):.1e} in {len(differences)} evaluations')
    assert max(differences) <= TOLERANCE


def test_random_cases():
    cases = [random_case(seed, images=4, objects=seed % 7, found=seed % 11, categories=(3, 1, 8)[:1 + seed % 3])
             for seed in range(100, 120)]
    largest = max(compare(*case, kind) for case in cases for kind in KINDS)
    print(f'\nlargest difference {largest:.1e} in {2 * len(cases)} evaluations')
    assert largest <= TOLERANCE


def test_nothing_detected_is_zero_and_nothing_to_detect_is_nan():
    content, detections = random_case(0)
    stats = evaluate(indexed(content), [], 'bbox').stats()
    assert [stats[name] for name in ('mAP', 'mAP_50', 'mAP_75', 'AR@1', 'AR@100')] == [0.0] * 5
    empty = {**content, 'annotations': []}
    result = evaluate(indexed(empty), detections, 'segm')
    assert all(math.isnan(value) for value in result.stats().values())
    assert result.without_ground_truth() == [1, 2, 3]


def test_one_category():
    content, detections = random_case(20)
    result = evaluate(indexed(content), detections, 'bbox')
    for category in (1, 2, 3):
        alone = {**content, 'annotations': [a for a in content['annotations'] if a['category_id'] == category]}
        theirs = pycocotools_says(alone, [d for d in detections if d['category_id'] == category], 'bbox')
        assert result.ap(category=category) == pytest.approx(theirs.stats[0], abs=TOLERANCE)
        assert result.ar(category=category, max_dets=10) == pytest.approx(theirs.stats[7], abs=TOLERANCE)


@pytest.mark.parametrize('kind', KINDS)
def test_curves_are_means_of_pycocotools_precision(kind):
    content, detections = random_case(5, images=6, objects=8, found=20)
    theirs = pycocotools_says(content, detections, kind)
    ours = evaluate(indexed(content), detections, kind)
    precision = theirs.eval['precision'][..., 0, -1]  # IoU, recall, category
    assert (precision > -1).all() and (np.asarray(RECALLS) == theirs.params.recThrs).all()
    for iou, which in ((None, slice(None)), (0.5, [0]), (0.75, [5])):
        np.testing.assert_allclose(ours.curve(iou), precision[which].mean(axis=(0, 2)), atol=1e-12)
        for index, category in enumerate(theirs.params.catIds):
            np.testing.assert_allclose(ours.curve(iou, category), precision[which][..., index].mean(axis=0), atol=1e-12)
    without = {**content, 'annotations': [a for a in content['annotations'] if a['category_id'] != ours.cat_ids[0]]}
    ours = evaluate(indexed(without), detections, kind)
    others = pycocotools_says(without, detections, kind).eval['precision'][:, :, 1:, 0, -1]
    assert np.isnan(ours.curve(0.5, ours.cat_ids[0])).all()
    np.testing.assert_allclose(ours.curve(), others.mean(axis=(0, 2)), atol=1e-12)


def test_input_stays_as_it_is():
    content, detections = random_case(21)
    before = json.dumps(detections)
    for kind in KINDS:
        evaluate(indexed(content), detections, kind)
        evaluate(indexed(content), detections, kind, backend='pycocotools')
    assert json.dumps(detections) == before


def test_areas_of_more_masks_than_pycocotools_takes_at_once():
    _, detections = random_case(22, images=30, found=20)
    masks = [detection['segmentation'] for detection in detections]
    from pycocotools import mask as coco_mask
    assert mask_areas(masks).tolist() == [int(coco_mask.decode(mask).sum()) for mask in masks] and len(masks) == 600
    assert mask_areas([]).tolist() == []


def test_mistakes():
    content, detections = random_case(23)
    with pytest.raises(UserError, match="backend must be 'faster' or 'pycocotools', not 'fast'"):
        evaluate(indexed(content), detections, 'bbox', backend='fast')
    content['annotations'][4]['segmentation'] = []
    with pytest.raises(UserError, match='annotation 5 of image 1 has no segmentation'):
        evaluate(indexed(content), detections, 'segm')
