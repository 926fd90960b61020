"""Exported detectors predict what the model predicts: boxes to 0.01 px, any size and batch, in every runtime."""
import json
import sys

import cv2
import numpy as np
import pytest
import torch
from tiny_detectors import tiny_detector, tiny_detector_config
from tool_runs import CONFIGS, must_run, run_tool

from convnext_dense.deploy import Options, export
from convnext_dense.deploy.proof import LIMITS, check, compare
from convnext_dense.errors import UserError
from convnext_dense.inference.predictor import Predictor
from convnext_dense.runtime import Predictor as Runtime

pytestmark = pytest.mark.slow
SUFFIXES = {'onnx': '.onnx', 'torch': '.pt2', 'openvino': '.xml'}


@pytest.fixture(scope='module')
def images(real_data):
    """Two validation images of COCO, one upright and one lying."""
    content = json.loads((real_data / 'coco/annotations/instances_val2017.json').read_text())
    return [str(real_data / 'coco/val2017' / image['file_name']) for image in content['images'][:2]]


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """(config, checkpoint) of a tiny Mask R-CNN."""
    file, cfg = tmp_path_factory.mktemp('model') / 'weights.pth', tiny_detector_config('mask')
    torch.save({'state_dict': tiny_detector(cfg).model.state_dict(), 'meta': {}}, file)
    return cfg, str(file)


@pytest.fixture(scope='module')
def reference(model):
    return Predictor(*model, device='cpu', score_thr=0, optimize=False)


@pytest.fixture(scope='module', params=SUFFIXES)
def exported(model, images, request, tmp_path_factory):
    """The model in each format."""
    file = tmp_path_factory.mktemp('exported') / f'model{SUFFIXES[request.param]}'
    print(f'\n{request.param}: {export(*model, file, Options(request.param, images))}')
    return file


def test_any_size_and_batch(exported, reference, images):
    """Five aspect ratios, one by one and three together."""
    runtime = Runtime(exported, 'cpu', score_thr=0)
    image = cv2.imread(images[0])[..., ::-1]
    for width, height in ((160, 160), (160, 107), (90, 160), (200, 110), (155, 121)):
        scaled = cv2.resize(image, (width, height))
        batch = [scaled, np.ascontiguousarray(scaled[:, ::-1]), np.ascontiguousarray(scaled[::-1])]
        expected = reference(batch)
        for size in (1, 3):
            seen = compare(expected, runtime(batch, batch_size=size))
            print(f'{exported.name} {height}x{width} batch {size}: {seen}')
            check(seen, LIMITS['float32'], exported.name)
        assert seen.detections > 0


def test_a_file_that_disagrees_is_not_written(model, images, tmp_path, monkeypatch):
    module = sys.modules[export.__module__]

    def wrong(predictor, precision, build=module.build_graph):
        graph = build(predictor, precision)
        graph.mean += 20
        return graph

    monkeypatch.setattr(module, 'build_graph', wrong)
    with pytest.raises(UserError, match='is not written: it predicts otherwise than the trained model'):
        export(*model, tmp_path / 'a.pt2', Options('torch', images))
    assert not list(tmp_path.iterdir())


def test_tools_take_an_exported_model(model, images, make_shapes, tmp_path):
    """Metric and report, predictions of a folder; a test set of other classes is refused."""
    file, data = tmp_path / 'model.onnx', make_shapes(train=2, val=3)
    export(*model, file, Options('onnx', images))
    must_run('test', CONFIGS['det'], file, '--data-root', data / 'coco', '--work-dir', tmp_path / 'test', '--device',
             'cpu', '--report')
    assert 'coco/segm_mAP' in json.loads((tmp_path / 'test/metrics.json').read_text())
    assert (tmp_path / 'test/report.html').is_file()
    must_run('predict', file, data / 'coco/val2017', '--out', tmp_path / 'out', '--score-thr', 0.1)
    written = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert len(written['images']) == 3 and written['annotations']
    other = run_tool('test', CONFIGS['seg'], file, '--data-root', data / 'ade', '--work-dir', tmp_path / 'other')
    assert 'predicts circle, square, triangle, and the test set' in other.error
