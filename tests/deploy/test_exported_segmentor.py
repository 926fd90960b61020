"""Exported segmentors give the label maps of the trained model, any size and batch, in every runtime and precision."""
import json
from collections import Counter

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from tool_runs import CONFIGS, must_run

from convnext_dense.benchmark.exported import EAGER, STOCK
from convnext_dense.config import load_config
from convnext_dense.deploy import Options, export
from convnext_dense.deploy.export import build_graph
from convnext_dense.deploy.formats import convert_openvino
from convnext_dense.deploy.proof import LIMITS, check, compare
from convnext_dense.errors import UserError
from convnext_dense.inference.predictor import Predictor
from convnext_dense.runtime import Predictor as Runtime

pytestmark = pytest.mark.slow
VARIANTS = {
    'onnx': Options('onnx', opset=20), 'torch': Options('torch'),
    'openvino': Options('openvino', size=(96, 128), batch=2)}  # of any size: detectors
SUFFIXES = {'onnx': '.onnx', 'torch': '.pt2', 'openvino': '.xml'}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """(config, checkpoint) of a tiny V2 UPerNet with random weights, whose classes differ from place to place."""
    cfg = load_config(str(CONFIGS['seg']), ['model.backbone.use_grn=True', 'model.backbone.layer_scale_init_value=0.0'])
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=(128, 96), keep_ratio=True))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    for name, weight in model.state_dict().items():
        if name.endswith(('conv_seg.weight', 'grn.gamma')):
            weight.copy_(torch.randn_like(weight))
    file = tmp_path_factory.mktemp('model') / 'weights.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, file)
    return cfg, str(file)


@pytest.fixture(scope='module')
def reference(model):
    return Predictor(*model, device='cpu', optimize=False)


@pytest.fixture(scope='module', params=VARIANTS)
def exported(model, ade_images, request, tmp_path_factory):
    """(file, options) of each variant; the export compares it with the model on the images."""
    options = VARIANTS[request.param]
    file = tmp_path_factory.mktemp('exported') / f'model{SUFFIXES[options.kind]}'
    print(f'\n{request.param}: {export(*model, file, Options(**{**vars(options), "images": ade_images}))}')
    return file, options


def test_any_size_and_batch(exported, reference, ade_images):
    """Five aspect ratios, one by one and three together."""
    file, options = exported
    runtime, image = Runtime(file, 'cpu'), cv2.imread(ade_images[0])[..., ::-1]
    for width, height in ((128, 96), (128, 77), (90, 96), (71, 96), (128, 70)):
        scaled = cv2.resize(image, (width, height))
        batch = [scaled, np.ascontiguousarray(scaled[:, ::-1]), np.ascontiguousarray(scaled[::-1])]
        # a graph of one size pads: so does the reference
        pictures = batch if not options.size else [runtime.load(each).inputs.transpose(1, 2, 0) for each in batch]
        expected = reference(pictures)
        for each in expected:
            each.labels = each.labels[:height, :width]
        assert len(expected[0]) > 1
        for size in (1, 3):
            seen = compare(expected, runtime(batch, batch_size=size))
            print(f'{file.name} {options.precision} {height}x{width} batch {size}: {seen}')
            check(seen, LIMITS[options.precision], file.name)


def test_images_that_a_program_does_not_take_are_named(exported):
    if exported[1].kind == 'torch':
        with pytest.raises(UserError, match='does not take 1 images of 128x40 pixels'):
            Runtime(exported[0], 'cpu')(np.zeros((40, 128, 3), np.uint8))


def test_tiles_are_those_of_the_trained_model(exported, model, ade_images):
    file, options = exported
    if options.size:
        pytest.skip('a graph of one size resizes tiles to fit')
    image = cv2.resize(cv2.imread(ade_images[0])[..., ::-1], (200, 160))
    expected = Predictor(*model, device='cpu', tile=96, overlap=0.3)(image)
    seen = compare([expected], [Runtime(file, 'cpu', tile=96, overlap=0.3)(image)])
    assert len(expected) > 1 and expected.size == (160, 200)
    check(seen, LIMITS[options.precision], file.name)


def test_the_tools_cut_large_images(exported, ade_images, make_shapes, tmp_path):
    """`--tile` of predict and test, beside the runtime's own results."""
    file, options = exported
    if options != VARIANTS['onnx']:
        pytest.skip('the tools are the same for all formats')
    data = make_shapes(train=1, val=2)
    must_run('test', CONFIGS['seg'], file, '--data-root', data / 'ade', '--work-dir', tmp_path / 'test', '--tile', 48)
    assert 0 <= json.loads((tmp_path / 'test/metrics.json').read_text())['mIoU'] <= 100
    must_run('predict', file, ade_images[0], '--out', tmp_path / 'out', '--tile', 300)
    written = np.asarray(Image.open(next((tmp_path / 'out/labels').iterdir())))
    np.testing.assert_array_equal(written, Runtime(file, 'cpu', tile=300)(ade_images[0]).labels)


def test_benchmark_has_both_kinds_of_eager(exported, model, tmp_path):
    file, options = exported
    if options != VARIANTS['onnx']:
        return
    must_run('benchmark', 'model', CONFIGS['seg'], '--checkpoint', model[1], '--exported', file, '--size', 96, 128,
             '--rounds', 1, '--json', tmp_path / 'result.json', '--cfg-options', 'model.backbone.use_grn=True',
             'model.backbone.layer_scale_init_value=0.0')
    result = json.loads((tmp_path / 'result.json').read_text())
    assert list(result['latency_ms']) == [STOCK, EAGER, str(file)] and min(result['latency_ms'].values()) > 0
    assert result['differences'][str(file)].startswith('1 images: 0 of')


def test_operators_are_those_of_tensorrt(exported, not_in_tensorrt):
    if exported[0].suffix == '.onnx':
        assert not not_in_tensorrt(exported[0])


def test_onnxruntime_computes_gelu_in_one_pass(exported, tmp_path):
    """It finds GELU and the bias before it, by the order of operators; Erf alone takes three more passes."""
    if exported[0].suffix != '.onnx':
        return
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / 'optimized.onnx')
    onnxruntime.InferenceSession(exported[0], settings, providers=['CPUExecutionProvider'])
    before, after = (Counter(node.op_type for node in onnx.load(file).graph.node)
                     for file in (exported[0], settings.optimized_model_filepath))
    assert before['Erf'] == after['BiasGelu'] > 0 == after['Erf']


def test_float16_differs_where_classes_are_as_near_as_its_rounding(model, reference, ade_images, tmp_path):
    """Scores within 1 % of their deviation; another class only where the best two are within twice the difference."""
    file = tmp_path / 'half.onnx'
    export(*model, file, Options('onnx', ade_images, precision='float16'))
    convert_openvino(file, Runtime(file, 'cpu').metadata, file.with_suffix('.xml'))
    plain = build_graph(reference, 'float32')
    for each in (file, file.with_suffix('.xml')):
        runtime = Runtime(each, 'cpu')
        for image in ade_images:
            inputs = runtime.load(image).inputs[None, :, :96, :128]
            with torch.no_grad():
                expected = plain(torch.from_numpy(inputs))[0].numpy()
            found, = runtime.backend.run(np.ascontiguousarray(inputs))
            difference, differ = np.abs(found - expected).max(), found.argmax(1) != expected.argmax(1)
            best = np.sort(expected, axis=1)[:, -2:]
            print(f'{each.name}: scores within {difference / expected.std():.2%} of their deviation, '
                  f'{differ.mean():.2%} of positions with another class')
            assert 0 < difference < 0.01 * expected.std()
            assert ((best[:, 1] - best[:, 0])[differ] <= 2 * difference).all()
