"""FastCocoMetric stands in for mmdet's CocoMetric: the same keys, values and files, and no silent cases."""
import json
import logging
import math

import numpy as np
import pytest
import torch
from coco_cases import as_results, indexed, pycocotools_says, random_case
from mmdet.evaluation import CocoMetric
from mmengine.logging import MMLogger

from convnext_dense.errors import UserError
from convnext_dense.evaluation.coco_eval import evaluate
from convnext_dense.evaluation.coco_metric import FastCocoMetric

ITEMS = ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000',
         'AR_l@1000']


@pytest.fixture(scope='module')
def case():
    """Enough objects that every size and class occurs."""
    return random_case(30, images=8, objects=9, found=25)


@pytest.fixture
def ann_file(case, tmp_path) -> str:
    return write(tmp_path / 'instances.json', case[0])


@pytest.fixture
def log():
    """Text of what is logged."""
    logger, lines = MMLogger.get_instance('evaluation', log_level='INFO'), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    return lines


def write(file, content) -> str:
    file.write_text(json.dumps(content))
    return str(file)


def samples_of(content: dict, detections: list[dict]) -> list[dict]:
    """What a model hands to mmdet's evaluator, with ground truth of the data set's own, too."""
    samples = []
    labels = {category['id']: label for label, category in enumerate(content['categories'])}
    for result, image in zip(as_results(detections, content), content['images'], strict=True):
        prediction = dict(masks=result['masks'])
        prediction |= {key: torch.from_numpy(result[key]) for key in ('bboxes', 'scores', 'labels')}
        truth = [dict(bbox=xyxy(a['bbox']), bbox_label=labels[a['category_id']], ignore_flag=a['iscrowd'],
                      mask=dict(a['segmentation'])) for a in content['annotations'] if a['image_id'] == image['id']]
        samples.append(dict(img_id=image['id'], ori_shape=(image['height'], image['width']), instances=truth,
                            pred_instances=prediction))
    return samples


def xyxy(box) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def run(metric, content, detections) -> dict:
    metric.dataset_meta = dict(classes=[category['name'] for category in content['categories']])
    samples = samples_of(content, detections)
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(samples))


def both(content, detections, **options) -> tuple[dict, dict]:
    return tuple(run(kind(**options), content, detections) for kind in (FastCocoMetric, CocoMetric))


@pytest.mark.parametrize('options', [
    dict(metric=['bbox', 'segm']),
    dict(metric=['bbox', 'segm'], metric_items=ITEMS),
    dict(metric='segm', iou_thrs=np.array([0.5, 0.6, 0.75])),  # mmdet fails with a list on numpy 2
    dict(metric='bbox', prefix='val'),
    dict(metric='proposal'),
    dict(metric='proposal', metric_items=['AR@300', 'AR_s@1000']),
    dict(metric='proposal_fast', proposal_nums=(1, 5, 20), iou_thrs=[0.5, 0.7]),
], ids=str)
def test_keys_and_values_are_those_of_mmdet(case, ann_file, options):
    for source in (dict(ann_file=ann_file), {}):
        ours, theirs = both(*case, **source, **options)
        print(f'\n{len(ours)} metrics, largest difference {max(abs(ours[key] - theirs[key]) for key in theirs):.1e}')
        assert ours == theirs and list(ours) == list(theirs)


def test_the_pycocotools_backend_says_the_same(case, ann_file):
    options = dict(ann_file=ann_file, metric=['bbox', 'segm', 'proposal'], classwise=True)
    found = [run(FastCocoMetric(backend=backend, **options), *case) for backend in ('faster', 'pycocotools')]
    assert found[0] == found[1]


@pytest.mark.parametrize('seed', range(3))
def test_masks_are_matched_at_their_image_and_dropped(seed, tmp_path):
    """What is kept of an image is small; precision is that of the masks to the last bit, crowds included."""
    content, detections = random_case(seed, images=5, objects=6, found=30)
    for annotation in content['annotations'][::4]:
        annotation['iscrowd'] = 1
    metric = FastCocoMetric(ann_file=write(tmp_path / 'ann.json', content), metric=['bbox', 'segm'])
    metric.dataset_meta = dict(classes=[category['name'] for category in content['categories']])
    for sample in samples_of(content, detections):
        metric.process({}, [sample])
    for _, result in metric.results:
        assert 'masks' not in result and len(result['mask_areas']) == len(result['scores'])
        assert all(ious.dtype == np.float64 and ious.ndim == 2 for ious in result['mask_ious'].values())
    metric.evaluate(len(content['images']))
    found, masks = metric.evaluations['segm'], evaluate(indexed(content), detections, 'segm', max_dets=[100, 300, 1000])
    assert np.array_equal(found.precision, masks.precision) and np.array_equal(found.recall, masks.recall)
    evaluator = pycocotools_says(content, detections, 'segm', maxDets=[100, 300, 1000])
    assert np.allclose(found.precision, evaluator.eval['precision'], rtol=0, atol=1e-15)


def test_classes_have_a_key_for_boxes_and_one_for_masks(case, ann_file, log):
    metric = FastCocoMetric(ann_file=ann_file, metric=['bbox', 'segm'], classwise=True)
    ours = run(metric, *case)
    for kind in ('bbox', 'segm'):
        theirs = run(CocoMetric(ann_file=ann_file, metric=kind, classwise=True), *case)
        for name in ('class 1', 'class 2', 'class 3'):
            assert ours[f'coco/{kind}_{name}_precision'] == theirs[f'coco/{name}_precision']
    table = next(line for line in log if 'category' in line)
    assert 'class 2' in table and 'mAP_75' in table
    assert metric.evaluations['segm'].ap() == pytest.approx(ours['coco/segm_mAP'], abs=5e-4)


def test_files_are_those_of_mmdet(case, ann_file, tmp_path):
    for source in (dict(ann_file=ann_file), {}):
        for kind in (FastCocoMetric, CocoMetric):
            metric = kind(metric=['bbox', 'segm'], format_only=True, **source,
                          outfile_prefix=str(tmp_path / kind.__name__ / 'run'))
            assert run(metric, *case) == {}
        ours, theirs = (sorted((tmp_path / kind.__name__).iterdir()) for kind in (FastCocoMetric, CocoMetric))
        assert [file.name for file in ours] == [file.name for file in theirs]
        assert all(file.name == 'run.gt.json' or file.read_text() == other.read_text()
                   for file, other in zip(ours, theirs, strict=True))


def test_image_lists_without_annotations_can_be_formatted(case, tmp_path):
    test_dev = {key: case[0][key] for key in ('images', 'categories')}
    metric = FastCocoMetric(ann_file=write(tmp_path / 'image_info.json', test_dev), format_only=True,
                            outfile_prefix=str(tmp_path / 'submission'))
    assert run(metric, *case) == {}
    assert len(json.loads((tmp_path / 'submission.bbox.json').read_text())) == len(case[1])


def test_nothing_detected_is_zero_and_said(case, ann_file, log):
    found = run(FastCocoMetric(ann_file=ann_file, metric=['bbox', 'segm', 'proposal']), case[0], [])
    assert set(found.values()) == {0.0} and len(found) == 18
    assert any('no detection on the whole data set' in line for line in log)


def test_what_has_no_ground_truth_is_nan_and_said(case, tmp_path, log):
    content = json.loads(json.dumps(case[0]))
    content['annotations'] = [a for a in content['annotations'] if a['category_id'] != 2 and a['area'] > 32 ** 2]
    found = run(FastCocoMetric(ann_file=write(tmp_path / 'some.json', content), classwise=True), content, case[1])
    assert math.isnan(found['coco/bbox_class 2_precision']) and math.isnan(found['coco/bbox_mAP_s'])
    theirs = pycocotools_says(content, case[1], 'bbox', maxDets=[100, 300, 1000]).stats
    assert found['coco/bbox_mAP'] == round(theirs[0], 3) > 0 and theirs[3] == -1
    assert any('1 of 3 classes have no object' in line and '(class 2)' in line for line in log)


def test_recall_at_other_numbers_of_proposals_is_named_by_them(case, ann_file):
    found = run(FastCocoMetric(ann_file=ann_file, metric='proposal', proposal_nums=(1, 10, 100)), *case)
    theirs = pycocotools_says(*case, 'bbox', useCats=0).stats
    assert found == {f'coco/{name}': round(value, 3) for name, value in zip(
        ['AR@1', 'AR@10', 'AR@100', 'AR_s@100', 'AR_m@100', 'AR_l@100'], theirs[6:], strict=True)}


def test_masks_are_encoded_as_by_mmdet():
    """Bool tensors, as detectors give them: objects, noise, empty and full masks, and no mask at all."""
    results = []
    for cls in (CocoMetric, FastCocoMetric):
        metric = cls(metric='segm', ann_file=None)
        metric.dataset_meta = dict(classes=('a', 'b'))
        random = np.random.default_rng(3)
        for image, (size, number) in enumerate([((40, 57), 12), ((31, 5), 4), ((7, 9), 0)]):
            masks = np.zeros((number, *size), bool)
            for index, mask in enumerate(masks):
                (top, left), (high, wide) = random.integers(0, size), random.integers(1, size)
                mask[top:top + high, left:left + wide] = random.random() < 0.7 or random.random(
                    mask[top:top + high, left:left + wide].shape) < 0.5
                mask[:] = (mask, mask, mask, True, False)[index % 5]
            found = dict(bboxes=torch.zeros(number, 4), scores=torch.ones(number), labels=torch.zeros(number).long(),
                         masks=torch.from_numpy(masks))
            metric.process({}, [dict(img_id=image, ori_shape=size, instances=[], pred_instances=found)])
            assert found['masks'].dtype == torch.bool  # what others may read stays as it was
        results.append([result['masks'] for _, result in metric.results])
    assert results[0] == results[1] and [len(masks) for masks in results[0]] == [12, 4, 0]
    assert len({mask['counts'] for masks in results[0] for mask in masks}) > 8


def test_ids_that_pycocotools_takes_for_no_match(case, tmp_path):
    """Annotation ids from 0 and repeated ones give what ids from 1 give."""
    content = json.loads(json.dumps(case[0]))
    expected = run(FastCocoMetric(ann_file=write(tmp_path / 'good.json', content)), *case)
    for number, annotation in enumerate(content['annotations']):
        annotation['id'] = number // 2
    assert run(FastCocoMetric(ann_file=write(tmp_path / 'bad.json', content)), content, case[1]) == expected


def test_recall_of_images_in_another_order(case, ann_file):
    options = dict(ann_file=ann_file, metric='proposal_fast')
    shuffled = {**case[0], 'images': case[0]['images'][::-1]}
    assert run(FastCocoMetric(**options), shuffled, case[1]) == run(FastCocoMetric(**options), *case)


def change(content: dict, key: str) -> dict:
    content = json.loads(json.dumps(content))
    del content['annotations'][3][key]
    return content


def test_annotation_files_that_cannot_work(case, tmp_path):
    content = case[0]
    no_names = [{'id': category['id']} for category in content['categories']]
    for bad, sentence in [
            ({'images': []}, "with the key 'categories', found images"),
            ({key: content[key] for key in ('images', 'categories')}, "with the key 'annotations'"),
            (case[1], 'a JSON object with images, categories, annotations, found a list: name the annotations'),
            ({**content, 'categories': no_names}, "entry 1 of 'categories' has no 'name'"),
            *((change(content, key), f"of 'annotations' has no '{key}'") for key in
              ('image_id', 'category_id', 'bbox', 'area'))]:
        file = write(tmp_path / 'bad.json', bad)
        with pytest.raises(UserError, match=f'bad.json.*{sentence}'):
            FastCocoMetric(ann_file=file)
    (tmp_path / 'bad.json').write_text(json.dumps(content)[:100])
    with pytest.raises(UserError, match='bad.json could not be read as JSON'):
        FastCocoMetric(ann_file=str(tmp_path / 'bad.json'))


def test_predictions_that_do_not_fit(case, ann_file):
    content, detections = case
    elsewhere = dict(content, images=[{**image, 'id': image['id'] + 6} for image in content['images']])
    with pytest.raises(UserError, match=r'6 of 8 predicted images are not in .*instances.json \(ids 9, 10, 11, 12, 13, '
                                        r'... \(6 in all\); the file has 1, 2'):
        run(FastCocoMetric(ann_file=ann_file), elsewhere, [])
    more = dict(content, categories=content['categories'] + [dict(id=9, name='class 9')])
    with pytest.raises(UserError, match=r'has 3 categories with the names of the 4 classes \(class 9 missing'):
        run(FastCocoMetric(ann_file=ann_file), more, detections)
    metric = FastCocoMetric(ann_file=ann_file)
    metric.dataset_meta = dict(classes=['class 1', 'class 2'])
    with pytest.raises(UserError, match='predicts label 2, but the data set has 2 classes, 0 to 1'):
        metric.process({}, samples_of(content, detections))
    small = [{**detection, 'segmentation': dict(size=[5, 5], counts='i0')} for detection in detections]
    with pytest.raises(UserError, match=r'predicted masks are \(5, 5\) \(height, width\), but .* says \(120, 160\)'):
        run(FastCocoMetric(ann_file=ann_file, metric='segm'), content, small)


@pytest.mark.parametrize('damage, sentence', [
    (lambda found: found['scores'].__setitem__(1, math.nan), 'the model predicts scores that are not finite'),
    (lambda found: found['bboxes'].__setitem__((1, 2), math.nan), 'the model predicts bboxes that are not finite'),
    (lambda found: found['bboxes'].__setitem__((1, 0), -math.inf), 'the model predicts bboxes that are not finite'),
    (lambda found: found['labels'].__setitem__(1, 3), 'the model predicts label 3, but the data set has 3 classes'),
    (lambda found: found['masks'].__setitem__(1, dict(size=[5, 5], counts='i0')), r'predicted masks are \(5, 5\)')],
    ids=['NaN score', 'NaN box', 'infinite box', 'label', 'second mask'])
def test_a_result_that_cannot_be_scored_is_refused_at_its_image(case, ann_file, damage, sentence):
    content, detections = case
    first, second, *_ = samples_of(content, detections)
    damage(second['pred_instances'])
    for metric in (FastCocoMetric(ann_file=ann_file, metric=['bbox', 'segm']), FastCocoMetric(metric='bbox')):
        metric.dataset_meta = dict(classes=[category['name'] for category in content['categories']])
        metric.process({}, [first])
        with pytest.raises(UserError, match=sentence):
            metric.process({}, [second])


def test_arguments_that_do_not_exist(ann_file):
    for options, sentence in [
            (dict(metric='mask'), "metric 'mask' is unknown; expected bbox, segm, proposal, proposal_fast"),
            (dict(backend='cuda'), "backend 'cuda' is unknown; expected faster, pycocotools"),
            (dict(metric_items=['mAP', 'AP']), "metric_items 'AP' is unknown; expected mAP, mAP_50")]:
        with pytest.raises(UserError, match=sentence):
            FastCocoMetric(ann_file=ann_file, **options)


def test_nothing_is_printed(case, ann_file, capsys):
    FastCocoMetric(ann_file=ann_file)
    indexed(case[0])
    metric = FastCocoMetric(ann_file=ann_file, metric=['bbox', 'segm'], backend='pycocotools')
    MMLogger.get_instance('quiet', log_level='ERROR')
    run(metric, *case)
    assert capsys.readouterr().out == ''


def test_the_registry_finds_it(ann_file):
    from mmdet.registry import METRICS
    metric = METRICS.build(dict(type='mmdet.FastCocoMetric', ann_file=ann_file, metric=['bbox', 'segm']))
    assert isinstance(metric, CocoMetric) and np.allclose(metric.iou_thrs, np.arange(0.5, 1, 0.05))
