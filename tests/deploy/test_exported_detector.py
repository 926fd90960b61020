"""Exported detectors predict what the model predicts: boxes to 0.01 px, any size and batch, in every runtime."""
import json
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tiny_detectors import tiny_detector, tiny_detector_config
from tool_runs import CONFIGS, must_run, run_tool

from convnext_dense.deploy import Options, export
from convnext_dense.deploy.proof import LIMITS, check, compare
from convnext_dense.detection.plain import PlainDetector
from convnext_dense.errors import UserError
from convnext_dense.inference.predictor import Predictor
from convnext_dense.runtime import Predictor as Runtime
from convnext_dense.utils.run_lengths import EncodedMasks

pytestmark = pytest.mark.slow
SUFFIXES = {'onnx': '.onnx', 'torch': '.pt2', 'openvino': '.xml'}


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
def exported(model, coco_images, request, tmp_path_factory):
    """The model in each format."""
    file = tmp_path_factory.mktemp('exported') / f'model{SUFFIXES[request.param]}'
    print(f'\n{request.param}: {export(*model, file, Options(request.param, coco_images))}')
    return file


def test_any_size_and_batch(exported, reference, coco_images):
    """Five aspect ratios, one by one and three together."""
    runtime = Runtime(exported, 'cpu', score_thr=0)
    image = cv2.imread(coco_images[0])[..., ::-1]
    for width, height in ((160, 160), (160, 107), (90, 160), (200, 110), (155, 121)):
        scaled = cv2.resize(image, (width, height))
        batch = [scaled, np.ascontiguousarray(scaled[:, ::-1]), np.ascontiguousarray(scaled[::-1])]
        expected = reference(batch)
        for size in (1, 3):
            seen = compare(expected, runtime(batch, batch_size=size))
            print(f'{exported.name} {height}x{width} batch {size}: {seen}')
            check(seen, LIMITS['float32'], exported.name)
        assert seen.detections > 0


def test_tiles_are_those_of_the_trained_model(exported, model, coco_images):
    """Objects of an image that is larger than a tile, masks as run lengths."""
    image = cv2.resize(cv2.imread(coco_images[0])[..., ::-1], (300, 260))
    expected = Predictor(*model, device='cpu', score_thr=0, optimize=False, tile=160, overlap=0.3)(image)
    found = Runtime(exported, 'cpu', score_thr=0, tile=160, overlap=0.3)(image)
    assert isinstance(found.masks, EncodedMasks) and found.size == (260, 300)
    seen = compare([expected], [found])
    print(f'{exported.name} in tiles: {seen}')
    assert seen.detections > 20
    check(seen, LIMITS['float32'], exported.name)


def test_results_without_torch_are_the_trained_models(exported, reference, coco_images, tmp_path):
    """The ONNX file in an interpreter that can import neither torch nor an MM package."""
    if exported.suffix != '.onnx':
        return
    code = f'''
import sys
for name in ("torch", "torchvision", "mmengine", "mmcv", "mmdet", "mmseg", "onnx"):
    sys.modules[name] = None
import numpy
from convnext_dense.runtime import Predictor
found = Predictor({str(exported)!r}, "cpu", score_thr=0)({coco_images[0]!r})
numpy.savez({str(tmp_path / "found.npz")!r}, labels=found.labels, boxes=found.boxes, scores=found.scores,
            masks=found.masks)
'''
    subprocess.run([sys.executable, '-c', code], check=True, timeout=300)
    expected = reference(coco_images[0])
    with np.load(tmp_path / 'found.npz') as found:
        seen = compare([expected], [replace(expected, **found)])
    assert seen.detections > 20
    check(seen, LIMITS['float32'], exported.name)


def test_operators_are_those_of_tensorrt(exported, not_in_tensorrt):
    if exported.suffix == '.onnx':
        assert not not_in_tensorrt(exported)


def test_the_graph_does_not_depend_on_values():
    """`torch.export` of the whole detector by Dynamo, which knows no graph breaks, and without sizes from values."""
    graph = PlainDetector(tiny_detector(tiny_detector_config('cascade')).model).eval()
    dim = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program = torch.export.export(graph, (torch.zeros(2, 3, 133, 197, dtype=torch.uint8),), strict=True,
                                      dynamic_shapes={'images': {0: dim, 2: dim, 3: dim}})
    names = {str(node.target) for node in program.graph.nodes}
    assert 'convnext_dense.nms_mask.default' in names
    of_values = {'_local_scalar_dense', '_assert_async', '_assert_scalar', 'sym_constrain_range', 'nonzero'}
    assert not of_values & {part for name in names for part in name.split('.')}
    assert not [symbol for symbol in program.range_constraints if str(symbol).startswith('u')]  # sizes from values


def test_a_file_that_disagrees_is_not_written(model, coco_images, tmp_path, monkeypatch):
    module = sys.modules[export.__module__]

    def wrong(predictor, precision, build=module.build_graph):
        graph = build(predictor, precision)
        graph.mean += 20
        return graph

    monkeypatch.setattr(module, 'build_graph', wrong)
    with pytest.raises(UserError, match='is not written: it predicts otherwise than the trained model'):
        export(*model, tmp_path / 'a.pt2', Options('torch', coco_images))
    assert not list(tmp_path.iterdir())


def test_tools_take_an_exported_model(model, coco_images, make_shapes, tmp_path):
    """Metric and report, predictions of a folder; a test set of other classes is refused."""
    file, data = tmp_path / 'model.onnx', make_shapes(train=2, val=3)
    export(*model, file, Options('onnx', coco_images))
    must_run('test', CONFIGS['det'], file, '--data-root', data / 'coco', '--work-dir', tmp_path / 'test', '--device',
             'cpu', '--report')
    assert 'coco/segm_mAP' in json.loads((tmp_path / 'test/metrics.json').read_text())
    assert (tmp_path / 'test/report.html').is_file()
    must_run('predict', file, data / 'coco/val2017', '--out', tmp_path / 'out', '--score-thr', 0.1)
    written = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert len(written['images']) == 3 and written['annotations']
    other = run_tool('test', CONFIGS['seg'], file, '--data-root', data / 'ade', '--work-dir', tmp_path / 'other')
    assert 'predicts circle, square, triangle, and the test set' in other.error
