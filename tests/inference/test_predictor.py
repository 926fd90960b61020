"""The Python API: the results are those of mmdet's and mmseg's own inference on the same weights."""
import io
import json
import shutil
import threading

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmengine.registry import MODELS, DefaultScope
from mmseg.apis import inference_model, init_model
from PIL import Image
from torch.nn.modules.batchnorm import _BatchNorm

import convnext_dense
from convnext_dense.checkpoints import zoo
from convnext_dense.checkpoints.downloads import cache_path
from convnext_dense.config import load_config
from convnext_dense.errors import UserError
from convnext_dense.inference.arrays import to_rgb
from convnext_dense.inference.predictor import Predictor, choose_dtype
from convnext_dense.recipes import metafile


@pytest.fixture(scope='module')
def detector(tiny, checkpoints) -> Predictor:
    return Predictor(tiny['det'], checkpoints['det'], device='cpu', score_thr=0)


@pytest.fixture(scope='module')
def segmentor(tiny, checkpoints) -> Predictor:
    return Predictor(str(tiny['seg']), str(checkpoints['seg']), device='cpu')


def test_detections_equal_mmdet(detector, tiny, checkpoints, images):
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = init_detector(str(tiny['det']), str(checkpoints['det']), palette='coco', device='cpu')
        expected = [inference_detector(model, str(image)).pred_instances for image in images]
    plain = Predictor(tiny['det'], checkpoints['det'], device='cpu', score_thr=0, optimize=False)(images)
    found = detector(images)
    assert sum(len(result.labels) for result in found) == 20  # the tiny config keeps five an image
    for ours, unfolded, theirs, image in zip(found, plain, expected, images, strict=True):
        np.testing.assert_array_equal(unfolded.boxes, theirs.bboxes.numpy())
        np.testing.assert_array_equal(unfolded.scores, theirs.scores.numpy())
        np.testing.assert_array_equal(unfolded.masks, theirs.masks.numpy())
        np.testing.assert_allclose(ours.boxes, theirs.bboxes.numpy(), atol=1e-3)  # folded weights round differently
        np.testing.assert_allclose(ours.scores, theirs.scores.numpy(), atol=1e-5)
        np.testing.assert_array_equal(ours.masks, theirs.masks.numpy())
        assert ours.masks.dtype == bool and ours.masks.any()
        assert ours.names == [('circle', 'square', 'triangle')[label] for label in theirs.labels]
        assert ours.size == cv2.imread(str(image)).shape[:2]


def test_segmentations_equal_mmseg(segmentor, tiny, checkpoints, images):
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = init_model(str(tiny['seg']), str(checkpoints['seg']), device='cpu')
        expected = [inference_model(model, str(image)).pred_sem_seg.data[0].numpy() for image in images]
    found = segmentor(images)
    assert {label for result in found for label in np.unique(result.labels)} > {0}  # more than one class
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.labels, theirs)
        assert ours.labels.dtype == np.uint8
        assert ours.classes == ('background', 'circle', 'square', 'triangle')


def test_the_predictors_model_is_folded(detector, segmentor):
    for predictor in (detector, segmentor):
        assert predictor.model.backbone.stages[0][0].gamma is None
    norms = [module for module in segmentor.model.decode_head.modules() if isinstance(module, _BatchNorm)]
    assert not norms and segmentor.model.decode_head.fpn_bottleneck.conv.bias is not None


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_bf16_is_near_fp32(task, tiny, checkpoints, images):
    """Limits for random weights, which lie far closer together than trained ones: see docs/speed.md."""
    full, half = (Predictor(tiny[task], checkpoints[task], device='cpu', score_thr=0, precision=precision)
                  for precision in ('fp32', 'bf16'))
    seen = set()
    half.model.backbone.register_forward_hook(lambda _, args, maps: seen.update(m.dtype for m in maps))
    for one, other in zip(full(images), half(images), strict=True):
        if task == 'seg':
            assert other.labels.dtype == one.labels.dtype and (one.labels == other.labels).mean() > 0.95
        else:
            assert len(other) == len(one) and other.boxes.dtype == np.float32
            np.testing.assert_allclose(other.scores, one.scores, atol=0.02)
    assert seen <= {torch.bfloat16, torch.float32} and torch.bfloat16 in seen


def test_precisions_that_cannot_be():
    for precision, sentence in (('fp16', "on a CPU, which has no fast fp16: use 'bf16', or a GPU"),
                                ('int8', "'int8' is unknown: expected fp32, bf16")):
        with pytest.raises(UserError, match=sentence):
            choose_dtype(precision, torch.device('cpu'))
    assert choose_dtype('fp16', torch.device('cuda')) == torch.float16


@pytest.mark.slow
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_compiled_is_eager(task, tiny, checkpoints, images):
    eager, compiled = (Predictor(tiny[task], checkpoints[task], device='cpu', score_thr=0, compile=compile)
                       for compile in (False, True))
    assert [hasattr(each.model.backbone.forward, '_torchdynamo_orig_callable') for each in (eager, compiled)] == [
        False, True]
    for one, other in zip(eager(images[:2]), compiled(images[:2]), strict=True):
        if task == 'seg':
            assert (one.labels == other.labels).mean() > 0.999  # but for ties
        else:
            np.testing.assert_allclose(other.boxes, one.boxes, atol=1e-3)
            np.testing.assert_allclose(other.scores, one.scores, atol=1e-5)
            assert (other.labels == one.labels).all() and (other.masks != one.masks).mean() < 1e-3


def test_images_are_read_ahead(detector, images, tmp_path, monkeypatch):
    """In another thread and in order; an image that cannot be read is the error that it is alone."""
    threads, read = [], detector._read
    monkeypatch.setattr(detector, '_read', lambda *args: (threads.append(threading.current_thread().name),
                                                          read(*args))[1])
    together = detector(images)
    assert threads == ['read-ahead_0'] * len(images)
    for one, image in zip(together, images, strict=True):
        np.testing.assert_array_equal(one.boxes, detector(image).boxes)
    assert threads[len(images):] == ['MainThread'] * len(images)
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'no image')
    errors = []
    for given in (broken, [images[0], broken, images[1]]):
        with pytest.raises(UserError) as error:
            detector(given)
        errors.append(str(error.value))
    assert errors[0] == errors[1] and 'broken.png' in errors[0]


def test_rgb_arrays_give_what_their_files_give(detector, segmentor, images):
    array = cv2.cvtColor(cv2.imread(str(images[0])), cv2.COLOR_BGR2RGB)
    of_file, of_array = detector(images[0]), detector(array)
    np.testing.assert_array_equal(of_file.boxes, of_array.boxes)
    np.testing.assert_array_equal(of_file.scores, of_array.scores)
    np.testing.assert_array_equal(segmentor(str(images[0])).labels, segmentor(array).labels)
    assert not np.array_equal(of_file.scores, detector(array[..., ::-1]).scores)  # the order of channels counts


def test_batches_of_mixed_sizes_keep_order_and_results(detector, segmentor, images):
    for single, together in zip(detector(images), detector(images, batch_size=4), strict=True):
        np.testing.assert_allclose(single.boxes, together.boxes, atol=1e-4)
        np.testing.assert_allclose(single.scores, together.scores, atol=1e-6)
        np.testing.assert_array_equal(single.labels, together.labels)
    singles = segmentor(images)
    assert [result.labels.shape for result in singles] == [(64, 64), (48, 80), (64, 64), (64, 64)]
    for single, together in zip(singles, segmentor(images, batch_size=3), strict=True):
        assert (single.labels != together.labels).mean() < 1e-3  # pixels where two classes all but tie


def test_classes_of_the_checkpoint_count(tiny, checkpoints, tmp_path, images):
    content = torch.load(checkpoints['det'], weights_only=True)
    names = ('ring', 'box', 'tent')
    torch.save({**content, 'meta': {'dataset_meta': {'classes': names}}}, tmp_path / 'named.pth')
    predictor = Predictor(tiny['det'], tmp_path / 'named.pth', device='cpu', score_thr=0)
    assert predictor.classes == names and set(predictor(images[0]).names) <= set(names)
    assert len(predictor.palette) == 3


def test_another_backbone_loads_strictly(tiny, tmp_path, images):
    cfg = load_config(str(tiny['seg']))
    cfg.model.backbone = dict(type='ResNet', depth=18, base_channels=8)
    cfg.model.decode_head.in_channels = [8, 16, 32, 64]
    cfg.model.auxiliary_head.in_channels = 32
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    torch.save(model.state_dict(), tmp_path / 'resnet.pth')
    assert Predictor(cfg, tmp_path / 'resnet.pth', device='cpu')(images[0]).labels.shape == (64, 64)
    torch.save({key: value for key, value in model.state_dict().items() if 'layer2' not in key}, tmp_path / 'short.pth')
    with pytest.raises(UserError, match='short.pth does not fit.*layer2'):
        Predictor(cfg, tmp_path / 'short.pth', device='cpu')


def test_a_model_zoo_name_stands_for_its_config_and_weights(tiny, checkpoints, images, detector, tmp_path, monkeypatch):
    """A model zoo of one entry, the tiny detector, whose weights are in the download cache."""
    name = 'mask-rcnn_convnext-t-in1k'
    entry = {'Name': name, 'In Collection': 'Mask R-CNN', 'Config': str(tiny['det']), 'Weights': zoo.find(name).url,
             'Metadata': {'Architecture': ['ConvNeXt'], 'Pretraining': 'ImageNet-1k'}}
    for task, models in (('det', [entry]), ('seg', [])):
        (tmp_path / task).mkdir()
        (tmp_path / task / 'metafile.yml').write_text(json.dumps({'Models': models}))
    monkeypatch.setattr(metafile, 'CONFIGS', tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    cached = cache_path(zoo.find(name).url)
    cached.parent.mkdir(parents=True)
    shutil.copy(checkpoints['det'], cached)
    found, expected = Predictor(name, device='cpu', score_thr=0)(images[0]), detector(images[0])
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.names == expected.names


def test_class_names_must_be_as_many_as_the_classes_of_the_model(tiny, checkpoints):
    cfg = load_config(str(tiny['det']))
    cfg.test_dataloader.dataset.metainfo = dict(classes=('circle', 'square'))
    with pytest.raises(UserError, match=r'tiny_det.py predicts 3 classes, but there are 2 class names \(circle, sq'):
        Predictor(cfg, checkpoints['det'], device='cpu')


def equal(one, other) -> bool:
    return np.array_equal(one.boxes, other.boxes) and np.array_equal(one.scores, other.scores)


def test_images_in_memory_give_what_their_files_give(detector, images):
    """PIL images, file objects, grey, RGBA, float and 16-bit arrays, each beside the file of the same pixels."""
    expected, rgb = detector(images[0]), np.array(Image.open(images[0]))
    alpha = np.random.default_rng(0).integers(0, 256, (*rgb.shape[:2], 1), np.uint8)
    same = {'PIL': Image.open(images[0]), 'palette': Image.fromarray(rgb).convert('RGBA'),
            'file object': io.BytesIO(images[0].read_bytes()), 'RGBA': np.concatenate([rgb, alpha], axis=2),
            'float': rgb / 255, 'float32': rgb.astype(np.float32) / 255}
    for name, image in same.items():
        assert equal(detector(image), expected), name
    assert equal(detector(rgb.astype(np.uint16) * 257, value_range=(0, 65535)), expected)
    assert equal(detector(rgb * 3.0 - 100, value_range=(-100, 665)), expected)
    assert equal(detector([images[0], Image.open(images[0])], batch_size=2)[1], expected)
    grey = rgb[..., 0]
    expected = detector(np.dstack([grey] * 3))
    for image in (grey, grey[..., None], Image.fromarray(grey), Image.fromarray(grey / np.float32(255), 'F')):
        assert equal(detector(image), expected)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert deep.mode.startswith('I') and equal(detector(deep, value_range=(0, 65535)), expected)


@pytest.mark.parametrize('array, message', [
    (np.zeros((8, 8, 2), np.uint8), 'expected .height, width.'), (np.zeros((3, 8, 8), np.uint8), 'expected'),
    (np.zeros((0, 8, 3), np.uint8), 'expected'), (np.zeros((8, 8, 3), np.uint16), r'give value_range=\(low, high\)'),
    (np.full((8, 8, 3), 255.0), 'values from 255 to 255: expected 0 to 1'),
    (np.full((8, 8), -0.1), 'values from -0.1'), (np.full((8, 8), np.nan), 'not finite'),
    (np.zeros((8, 8), bool), 'value_range')])
def test_arrays_that_do_not_say_what_they_mean_are_refused(array, message):
    with pytest.raises(UserError, match=message):
        to_rgb(array)
    for wrong in ((5, 5), (9, 1), (0, np.inf), 7, ('a', 'b')):
        with pytest.raises(UserError, match='expected two numbers'):
            to_rgb(np.zeros((8, 8), np.uint16), wrong)


def test_mistakes_are_named(detector, tiny, checkpoints, tmp_path):
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'empty.jpg').touch()
    with pytest.raises(UserError, match='cannot read the file object as an image'):
        detector(io.BytesIO(b'no image'))
    for name in ('text.jpg', 'empty.jpg', 'missing.jpg'):
        with pytest.raises(UserError, match=name):
            detector(tmp_path / name)
    with pytest.raises(UserError, match='mask-rcnn_convnext-t-in1k'):
        Predictor('mask-rcnn_convnext-t')
    with pytest.raises(UserError, match='does not exist'):
        Predictor(tiny['det'], tmp_path / 'weights.pth')
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match='no GPU'):
            Predictor(tiny['det'], checkpoints['det'], device='cuda:1')


def test_predictor_is_a_public_name():
    assert convnext_dense.Predictor is Predictor and 'Predictor' in convnext_dense.__all__
    with pytest.raises(AttributeError, match="'Predicter'"):
        convnext_dense.Predicter  # noqa: B018
