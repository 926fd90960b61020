"""Every figure and curve against pycocotools on the same detections."""
import numpy as np
import pytest
from faster_coco_eval import COCO as FastCOCO
from noisy import noisy_detections
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from convnext_dense.report.average_precision import AveragePrecision


@pytest.fixture(scope='module')
def cases(real_data):
    """kind -> (ours, pycocotools' evaluation, category ids in the order of the labels)."""
    file = str(real_data / 'coco/annotations/instances_val2017.json')
    truth = COCO(file)
    categories = sorted(truth.cats)
    predictions = noisy_detections(truth)
    reversed_ids = categories[::-1]  # labels need not follow the order of the ids
    for prediction in predictions:
        found = prediction['pred_instances']
        found['labels'] = len(categories) - 1 - found['labels']
    made = {}
    for kind in ('bbox', 'segm'):
        results = []
        for prediction in predictions:
            found = prediction['pred_instances']
            for i, label in enumerate(found['labels']):
                x1, y1, x2, y2 = found['bboxes'][i]
                place = {'bbox': [x1, y1, x2 - x1, y2 - y1]} if kind == 'bbox' else {'segmentation': found['masks'][i]}
                results.append({'image_id': prediction['img_id'], 'category_id': reversed_ids[label],
                                'score': found['scores'][i], **place})
        reference = COCOeval(truth, truth.loadRes(results), kind)
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
        made[kind] = AveragePrecision(FastCOCO(file), predictions, reversed_ids, kind), reference, reversed_ids
    return made


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_figures_equal_pycocotools(cases, kind):
    ours, reference, _ = cases[kind]
    figures = [ours.ap(), ours.ap(0.5), ours.ap(0.75), ours.ap(area='small'), ours.ap(area='medium'),
               ours.ap(area='large'), ours.ar()]
    wanted = [*reference.stats[:6], reference.stats[8]]
    print(f'\n{kind}: largest difference of 7 figures {np.abs(np.subtract(figures, wanted)).max():.1e}')
    assert figures == pytest.approx(wanted, abs=1e-12) and 0.1 < figures[0] < 0.9


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_curves_equal_pycocotools_precision(cases, kind):
    ours, reference, category_ids = cases[kind]
    precision = reference.eval['precision'][..., 0, -1]  # IoU, recall, class
    largest = 0.0
    for label, category in enumerate(category_ids):
        wanted = precision[:, :, reference.params.catIds.index(category)]
        assert (wanted > -1).all()  # every class has objects
        for iou, index in ((None, slice(None)), (0.5, [0]), (0.75, [5])):
            largest = max(largest, np.abs(ours.curve(iou, label) - wanted[index].mean(axis=0)).max())
        assert ours.class_ap()[label] == pytest.approx(wanted.mean(), abs=1e-12)
    for iou, index in ((None, slice(None)), (0.5, [0]), (0.75, [5])):
        largest = max(largest, np.abs(ours.curve(iou) - precision[index].mean(axis=(0, 2))).max())
    print(f'\n{kind}: largest difference of {3 * len(category_ids) + 3} curves {largest:.1e}')
    assert largest < 1e-12


def tiny(annotations) -> FastCOCO:
    return FastCOCO({'images': [{'id': 1, 'height': 100, 'width': 100, 'file_name': '1.jpg'}],
                     'annotations': annotations, 'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}]})


def nothing_found() -> dict:
    return {'img_id': 1, 'pred_instances': {'bboxes': np.zeros((0, 4)), 'labels': np.zeros(0), 'scores': np.zeros(0)}}


def test_no_detections_give_zero_and_classes_without_objects_none():
    truth = tiny([{'id': 1, 'image_id': 1, 'category_id': 2, 'bbox': [0, 0, 50, 50], 'area': 2500, 'iscrowd': 0}])
    ours = AveragePrecision(truth, [nothing_found()], [1, 2], 'bbox')
    assert ours.ap() == 0 and ours.class_ap() == [None, 0] and ours.ap(area='small') is None
    assert (ours.curve() == 0).all()


def test_no_annotations_are_nothing_to_measure():
    found = nothing_found()
    found['pred_instances'].update(bboxes=np.array([[0, 0, 9, 9]]), labels=np.array([0]), scores=np.array([0.5]))
    ours = AveragePrecision(tiny([]), [found], [1, 2], 'bbox')
    assert ours.ap() is None and ours.ar() is None and ours.class_ap() == [None, None]
