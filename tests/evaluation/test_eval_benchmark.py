"""tools/benchmark.py eval compares what it times, with data and without; the noise it evaluates is of use."""
import argparse
import json

import pytest
from coco_cases import as_results, indexed
from tool_runs import must_run

from convnext_dense.benchmark.detections import enlarge, generated_ground_truth, noisy_detections
from convnext_dense.benchmark.evaluation import run
from convnext_dense.errors import UserError
from convnext_dense.evaluation.coco_data import to_coco
from convnext_dense.evaluation.coco_eval import evaluate


def test_noise_is_partly_right_and_reproducible():
    content = generated_ground_truth(20)
    detections = noisy_detections(content, 30)
    assert detections == noisy_detections(content, 30) != noisy_detections(content, 30, seed=1)
    for kind in ('bbox', 'segm'):
        assert 0.05 < evaluate(indexed(content), detections, kind).ap(iou=0.5) < 0.95
    alike = noisy_detections(content, 30, misplaced=0, mislabelled=0)
    truth = {(a['image_id'], a['category_id']) for a in content['annotations']}
    assert all((d['image_id'], d['category_id']) in truth for d in alike)


def test_enlarged_ground_truth_repeats_every_image():
    content = generated_ground_truth(3)
    large = enlarge(content, 7)
    assert [image['id'] for image in large['images']] == list(range(1, 8))
    assert [a['id'] for a in large['annotations']] == list(range(1, 7 * 7 + 1))
    boxes = [[a['bbox'] for a in part['annotations'] if a['image_id'] == image]
             for part, image in ((content, 1), (large, 1), (large, 4), (large, 7))]
    assert boxes[0] == boxes[1] == boxes[2] == boxes[3]


def test_results_of_mmdet_come_back_as_they_were():
    content = generated_ground_truth(4)
    detections = noisy_detections(content, 10)
    ids = [category['id'] for category in content['categories']]
    back = to_coco(as_results(detections, content), indexed(content), ids, 'generated')
    assert len(back['segm']) == len(detections)
    for one, box, mask in zip(detections, back['bbox'], back['segm'], strict=True):
        assert box == {key: one[key] for key in box} and mask == {key: one[key] for key in mask}


@pytest.mark.slow
def test_the_tool_prints_and_writes_every_row(tmp_path):
    options = ['--data-root', tmp_path, '--images', 12, '--per-image', 20, '--rounds', 1, '--json', 'eval.json']
    finished = must_run('benchmark', 'eval', *options, cwd=tmp_path)
    rows = json.loads((tmp_path / 'eval.json').read_text())['rows']
    assert [(row['what'], row['name']) for row in rows] == [
        *((what, name) for what in ('box AP', 'mask AP') for name in ('ours', 'faster-coco-eval alone', 'pycocotools')),
        ('masks of an image', 'ours'), ('masks of an image', 'mmdet'), ('mIoU', 'ours'), ('mIoU', 'mmseg')]
    assert all(row['difference'] <= 1e-10 and row['median_s'] > 0 for row in rows)
    assert all(f'| {row["what"]} | {row["name"]} |' in finished.out for row in rows)
    assert 'generated (no ' in finished.out


def test_mistakes_of_the_tool(tmp_path):
    def measure(**changed):
        run(argparse.Namespace(**dict(data_root=tmp_path, images=5, per_image=5, rounds=1) | changed))
    with pytest.raises(UserError, match='benchmark eval: --per-image must be at least 1, not 0'):
        measure(per_image=0)
    content = generated_ground_truth(1)
    content['annotations'][0]['segmentation'] = []
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/instances_val2017.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match='instances_val2017.json has no masks, or not for every object'):
        measure()
