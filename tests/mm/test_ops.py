"""mmcv's operators without a compiler: against loops written here, and against compiled ones where there are any.

The references are scalar loops over boxes, bins and samples; gradients come from autograd through them.
"""
import inspect
import itertools
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision

from convnext_dense.benchmark import operators as comparison
from convnext_dense.benchmark.operator_cases import FAMILIES, random_boxes, random_rois
from convnext_dense.cli import check_ops
from convnext_dense.mm import operators
from convnext_dense.mm.operators.nms import nms

pytest.importorskip('mmcv', reason='the operators exist for mmcv')
F32 = np.float32


# ------------------------------------------------------------------------------------------------ references
def iou(a, b, offset):
    """IoU of two boxes in float32 scalars."""
    width = max(F32(0), min(a[2], b[2]) - max(a[0], b[0]) + F32(offset))
    height = max(F32(0), min(a[3], b[3]) - max(a[1], b[1]) + F32(offset))
    area = [(box[2] - box[0] + F32(offset)) * (box[3] - box[1] + F32(offset)) for box in (a, b)]
    union = area[0] + area[1] - width * height
    return width * height / union if union else F32(np.nan)


def loop_nms(boxes, scores, threshold, offset):
    """Keep a box unless a kept, better one overlaps it by more than the threshold; ties in input order."""
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):  # sorted() is stable
        if not any(iou(boxes[k], boxes[i], offset) > F32(threshold) for k in kept):
            kept.append(i)
    return kept


def loop_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    """(index, new score) of the boxes that stay; the list is kept as mmcv's kernel keeps it, which decides ties."""
    waiting = [(i, F32(score)) for i, score in enumerate(scores)]
    chosen = []
    while waiting:
        best = max(range(len(waiting)), key=lambda i: waiting[i][1])  # the first one among equals
        waiting[0], waiting[best] = waiting[best], waiting[0]
        chosen.append(waiting.pop(0))
        at = 0
        while at < len(waiting):
            i, score = waiting[at]
            overlap = iou(boxes[chosen[-1][0]], boxes[i], offset)
            if method == 'gaussian':
                score *= F32(math.exp(-(overlap * overlap) / F32(sigma)))
            elif overlap >= F32(threshold):
                score *= F32(0) if method == 'naive' else F32(1) - overlap
            if score < F32(min_score):
                last = waiting.pop()
                if at < len(waiting):
                    waiting[at] = last  # looked at next
            else:
                waiting[at] = (i, score)
                at += 1
    return chosen


def bilinear(plane, y, x):
    """Features (C,) at a point: zero beyond one pixel outside, the border's value in between."""
    height, width = plane.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane[:, 0, 0] * 0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[:, top, left] * (left + 1 - x) + plane[:, top, right] * (x - left)
    lower = plane[:, bottom, left] * (left + 1 - x) + plane[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def loop_roi_align(features, rois, size, scale, ratio, mode, aligned):
    """RoIAlign one sample at a time, differentiable; an empty bin is 0, or -10000 with mode max as in mmcv."""
    results = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (corner * scale - (0.5 if aligned else 0) for corner in corners)
        extent = [y2 - y1, x2 - x1] if aligned else [max(y2 - y1, 1), max(x2 - x1, 1)]
        step = [extent[0] / size[0], extent[1] / size[1]]
        count = [ratio or math.ceil(step[0]), ratio or math.ceil(step[1])]
        for row in range(size[0]):
            for column in range(size[1]):
                samples = [bilinear(features[int(image)], y1 + (row + (i + 0.5) / count[0]) * step[0],
                                    x1 + (column + (j + 0.5) / count[1]) * step[1])
                           for i in range(count[0]) for j in range(count[1])]
                if not samples:
                    samples = [features[0, :, 0, 0] * 0 + (-10000. if mode == 'max' else 0.)]
                stacked = torch.stack(samples)
                results.append(stacked.max(0).values if mode == 'max' else stacked.mean(0))
    return torch.stack(results).reshape(len(rois), *size, -1).permute(0, 3, 1, 2)


# ------------------------------------------------------------------------------------------------ nms
@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('offset', [0, 1])
def test_nms_equals_a_loop(offset, ties):
    generator = torch.Generator().manual_seed(1)
    for count in (0, 1, 2, 60):
        for threshold in (0.3, 0.6, 0.7):
            boxes, scores = random_boxes(count, generator, ties)
            kept = nms(boxes, scores, iou_threshold=threshold, offset=offset)
            assert kept.dtype == torch.int64
            assert kept.tolist() == loop_nms(boxes.numpy(), scores.numpy(), threshold, offset)


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_prefers_the_first_of_tied_boxes(offset):
    boxes = torch.tensor([[50., 50, 60, 60], [0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 10]])
    assert nms(boxes, torch.full((5,), 0.5), 0.5, offset).tolist() == [0, 1]


def test_nms_compares_the_threshold_in_float32():
    """IoU is exactly 3 / 5, which in float32 is not above 0.6 (in float64 it would be)."""
    boxes = torch.tensor([[0., 0, 5, 1], [0, 0, 3, 1]])
    assert nms(boxes, torch.tensor([0.9, 0.8]), iou_threshold=0.6, offset=0).tolist() == [0, 1]
    assert nms(boxes, torch.tensor([0.9, 0.8]), iou_threshold=0.59, offset=0).tolist() == [0]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_nms_of_another_dtype_equals_float32_of_the_same_values(dtype):
    boxes, scores = random_boxes(50, torch.Generator().manual_seed(2))
    boxes, scores = boxes.half().to(dtype), scores.half().to(dtype)
    for offset in (0, 1):
        expected = nms(boxes.float(), scores.float(), 0.5, offset)
        assert nms(boxes, scores, 0.5, offset).equal(expected)
        assert nms(boxes.float(), scores, 0.5, offset).equal(expected)


# ------------------------------------------------------------------------------------------------ soft-NMS
@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_equals_a_loop(mmcv_ops, method, offset, ties):
    generator = torch.Generator().manual_seed(3)
    for count in (1, 2, 50):
        for min_score in (1e-3, 0.3):
            boxes, scores = random_boxes(count, generator, ties)
            dets, kept = mmcv_ops.soft_nms(boxes, scores, 0.3, 0.5, min_score, method, offset)
            expected = loop_soft_nms(boxes.numpy(), scores.numpy(), 0.3, 0.5, min_score, method, offset)
            assert kept.tolist() == [i for i, _ in expected]
            assert dets[:, :4].equal(boxes[kept])
            np.testing.assert_array_equal(dets[:, 4], np.array([score for _, score in expected], F32))  # NaN as NaN


def test_soft_nms_of_nothing_is_nothing(mmcv_ops):
    dets, kept = mmcv_ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and kept.shape == (0,) and kept.dtype == torch.int64


def test_soft_nms_keeps_the_best_box_below_min_score(mmcv_ops):
    boxes = torch.tensor([[0., 0, 4, 4], [20, 20, 24, 24], [40, 40, 44, 44]])
    dets, kept = mmcv_ops.soft_nms(boxes, torch.tensor([0.1, 0.3, 0.2]), min_score=0.5)
    assert kept.tolist() == [1] and dets[0, 4] == F32(0.3)


# ------------------------------------------------------------------------------------------------ RoIAlign
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('mode, layout', [('avg', torch.contiguous_format), ('avg', torch.channels_last),
                                          ('max', torch.contiguous_format)], ids=['avg', 'avg-channels-last', 'max'])
def test_roi_align_and_its_gradient_equal_a_loop(mmcv_ops, mode, layout, ratio, aligned):
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(2, 3, 10, 14, generator=generator, dtype=torch.float64, requires_grad=True)
    rois = random_rois(11, 2, generator)  # two without area, some past the border
    pool = mmcv_ops.RoIAlign((2, 3), 1 / 16, ratio, mode, aligned)
    got = pool(features.float().contiguous(memory_format=layout), rois)
    expected = loop_roi_align(features, rois.double(), (2, 3), 1 / 16, ratio, mode, aligned)
    assert rois[:, 3:].max() > 224 and rois[:, 1:].min() < 0
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-6)
    weight = torch.randn(got.shape, generator=generator)
    gradients = [torch.autograd.grad((result * weight).sum(), features)[0] for result in (got, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('size', [7, 14])
def test_roi_align_of_channels_last_maps_is_torchvisions(mmcv_ops, size, aligned, monkeypatch):
    """Many RoIs of all sizes: some as wide as a whole number of bins, some partly or wholly outside, some empty."""
    monkeypatch.setattr('convnext_dense.mm.operators.roi_align.TAPS', 5000)  # several groups
    generator = torch.Generator().manual_seed(6)
    features = torch.randn(2, 5, 37, 50, generator=generator)
    corners = torch.rand(400, 2, generator=generator) * 220 - 40
    sides = torch.rand(400, 2, generator=generator) ** 3 * 400
    sides[:100] = 4 * size * torch.randint(0, 4, (100, 2), generator=generator)
    corners[:20] = torch.tensor([900.0, 30])
    rois = torch.cat([torch.randint(0, 2, (400, 1), generator=generator), corners, corners + sides], 1)
    pool = mmcv_ops.RoIAlign(size, 1 / 4, 0, 'avg', aligned)
    found = pool(features.contiguous(memory_format=torch.channels_last), rois)
    expected = torchvision.ops.roi_align(features, rois, size, 1 / 4, 0, aligned)
    assert found.is_contiguous() and (expected == 0).any() and expected.abs().max() > 1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_gradient_equals_finite_differences(mmcv_ops, mode):
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(2, 1, 8, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    rois = random_rois(5, 2, generator).double()
    assert torch.autograd.gradcheck(mmcv_ops.RoIAlign((2, 2), 1 / 20, 0, mode), (features, rois))


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_of_no_rois(mmcv_ops, mode):
    features = torch.randn(2, 3, 8, 8, requires_grad=True)
    result = mmcv_ops.RoIAlign(7, 0.25, 0, mode)(features, torch.zeros(0, 5))
    assert result.shape == (0, 3, 7, 7)
    result.sum().backward()
    assert features.grad.equal(torch.zeros_like(features))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_roi_align_under_autocast_rounds_only_its_result(mmcv_ops, dtype):
    """Features in half, RoIs in float32 at places that half precision cannot hold: as float32, then rounded."""
    torch.manual_seed(6)
    image, conv = torch.randn(1, 3, 8, 300), torch.nn.Conv2d(3, 4, 1)
    rois = torch.tensor([[0, 1001.3, 3.3, 1101.7, 29.1], [0, 37.77, 0., 1100.9, 31.]])
    pool = mmcv_ops.RoIAlign((3, 5), 0.25, 0)
    with torch.autocast('cpu', dtype):
        features = conv(image)
        features.retain_grad()
        result = pool(features, rois)
        loss = (result.float() * torch.linspace(-1, 1, 5)).sum()
    loss.backward()
    assert features.dtype == result.dtype == features.grad.dtype == dtype

    wide = features.detach().float().requires_grad_()
    expected = pool(wide, rois)
    (expected.to(dtype).float() * torch.linspace(-1, 1, 5)).sum().backward()
    assert result.equal(expected.to(dtype))
    assert features.grad.equal(wide.grad.to(dtype))
    assert conv.weight.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize('roi, message', [
    ([0, 1, 1, math.nan, 5], 'finite'), ([2, 1, 1, 4, 5], 'index one of 2 images'),
    ([-1, 1, 1, 4, 5], 'index one of 2 images'), ([0, 4, 1, 1, 5], 'x2 >= x1')])
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_refuses_rois_that_make_no_sense(mmcv_ops, mode, roi, message):
    with pytest.raises(ValueError, match=message):
        mmcv_ops.RoIAlign(2, 1., 0, mode)(torch.zeros(2, 3, 8, 8), torch.tensor([roi], dtype=torch.float32))


def test_tensors_on_two_devices_are_refused(mmcv_ops):
    """The meta device stands for a GPU, which not every machine has."""
    with pytest.raises(ValueError, match='nms: .*boxes on cpu, scores on meta'):
        nms(torch.zeros(2, 4), torch.zeros(2, device='meta'), 0.5, 0)
    with pytest.raises(ValueError, match='roi_align_forward: .*rois on meta, input on cpu'):
        mmcv_ops.RoIAlign(2)(torch.zeros(1, 3, 8, 8), torch.zeros(2, 5, device='meta'))


# ------------------------------------------------------------------------------------------------ the module
FRESH = '''
import importlib.util, sys, torch
# alone: the package would import more
spec = importlib.util.spec_from_file_location('ops', sys.argv[1], submodule_search_locations=[sys.argv[2]])
ops = sys.modules['ops'] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ops)
assert not ops.compiled()
ops.install()
module = sys.modules['mmcv._ext']
ops.install()
assert sys.modules['mmcv._ext'] is module and not hasattr(module, '__path__')
assert not [name for name in sys.modules if name.split('.')[0] in ('mmcv', 'mmengine') and name != 'mmcv._ext']
asked, look_up = set(ops.OPERATORS), type(module).__getattr__
type(module).__getattr__ = lambda self, name: asked.add(name) or look_up(self, name)
import mmcv.ops
asked = {name for name in asked if not name.startswith('_')}
assert len(asked) > 100
assert ops.in_use() == {name: 'torch' if name in ops.OPERATORS else 'unavailable' for name in asked}
boxes = torch.tensor([[0., 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4], [30, 30, 40, 40]])
scores, classes = torch.tensor([0.6, 0.9, 0.8, 0.7]), torch.tensor([0, 1, 1, 1])
assert mmcv.ops.nms(boxes, scores, 0.45)[1].tolist() == [1, 3]  # box 1 covers 0.8 of box 0 and twice box 2
assert mmcv.ops.nms(boxes.numpy(), scores.numpy(), 0.45)[1].tolist() == [1, 3]
assert mmcv.ops.nms(boxes, scores, 0.45, max_num=1)[1].tolist() == [1]
assert mmcv.ops.batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.45))[1].tolist() == [1, 3, 0]
dets, kept = mmcv.ops.soft_nms(boxes, scores, 0.45)
assert kept.tolist() == [1, 3, 2, 0]  # 0.8 * (1 - 0.5) = 0.4; 0.6 * (1 - 0.8) = 0.12, not less for 0.4 < 0.45
torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.7, 0.4, 0.12]))
ramp = torch.arange(8.).expand(1, 1, 8, 8)  # a plane is averaged to its value at a bin's centre
pooled = mmcv.ops.RoIAlign((1, 2), 1.0, 0, 'avg', aligned=False)(ramp, torch.tensor([[0, 1., 1, 5, 5]]))
assert pooled.flatten().tolist() == [2., 4.]
try:
    mmcv.ops.tin_shift(torch.rand(1, 1, 4, 2, 2), torch.zeros(1, 1, dtype=torch.int))
except NotImplementedError as error:
    assert 'tin_shift_forward' in str(error) and '--no-build-isolation' in str(error), error
else:
    raise AssertionError('tin_shift ran')
'''


@pytest.mark.skipif(operators.compiled(), reason='this mmcv brings compiled operators')
def test_mmcv_ops_works_after_install_in_a_fresh_process():
    package = Path(operators.__file__)
    command = [sys.executable, '-c', FRESH, str(package), str(package.parent)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('folder, placed, in_use', [
    ('mmcv', operators.WithCare, {'nms': 'compiled', 'nms_match': 'compiled', 'tin_shift': 'compiled'}),
    ('lite', operators.StandIn, {'nms': 'torch', 'nms_match': 'torch', 'tin_shift': 'unavailable'}),
    ('none', type(None), {})])
def test_install_imports_nothing(tmp_path, monkeypatch, folder, placed, in_use):
    if folder == 'none':
        monkeypatch.setitem(sys.modules, 'mmcv', None)  # as if it were not installed
    else:
        fake_mmcv(tmp_path, monkeypatch, "raise AssertionError('it was loaded')" if folder == 'mmcv' else None)
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    operators.install()
    assert isinstance(sys.modules.pop('mmcv._ext', None), placed)
    assert operators.compiled() == (folder == 'mmcv') and operators.in_use() == in_use


def fake_mmcv(folder, monkeypatch, extension):
    """An mmcv of three operators, which must not be imported; ``extension`` is the code of its compiled module."""
    (folder / 'mmcv/ops').mkdir(parents=True)
    (folder / 'mmcv/__init__.py').write_text('raise AssertionError("mmcv was imported")')
    names = "['nms', 'nms_match', 'tin_shift']"
    (folder / 'mmcv/ops/nms.py').write_text(f"ext_module = ext_loader.load_ext(\n    '_ext', {names})\n")
    if extension is not None:
        (folder / 'mmcv/_ext.py').write_text(extension)
    monkeypatch.delitem(sys.modules, 'mmcv', raising=False)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize('family', FAMILIES)
def test_autocast_does_not_change_an_operator(family):
    """Operators choose their dtypes: torch's autocast to bf16 would round inside them."""
    module = operators.StandIn()
    for _, run in itertools.islice(family(torch.Generator().manual_seed(0), 'cpu'), 0, 108, 9):
        expected = run(module, torch.contiguous_format)
        with torch.autocast('cpu', torch.bfloat16):
            found = run(module, torch.contiguous_format)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


# --------------------------------------------------------------------------------- compiled operators, with care
def as_compiled(ours):
    """``ours`` as a compiled operator behaves: reads memory as if contiguous, one floating dtype, no bfloat16."""
    parameters = inspect.signature(ours)

    def call(*args, **kwargs):
        given = parameters.bind(*args, **kwargs).arguments
        dtypes = {value.dtype for value in given.values() if isinstance(value, torch.Tensor)
                  and value.is_floating_point()}
        if len(dtypes) > 1 or torch.bfloat16 in dtypes:
            raise RuntimeError(f'expected one scalar type, not implemented for BFloat16, found {dtypes}')
        for name, value in given.items():
            if isinstance(value, torch.Tensor):
                strides = torch.empty(value.shape, device='meta').stride()
                given[name] = torch.as_strided(value, value.shape, strides, value.storage_offset())
        return ours(**given)

    return call


RAW = SimpleNamespace(**{name: as_compiled(ours) for name, ours in operators.OPERATORS.items()})
CAREFUL = SimpleNamespace(**{name: operators.with_care(getattr(RAW, name), ours)
                             for name, ours in operators.OPERATORS.items()})


@pytest.mark.parametrize('family', [family for family in FAMILIES if 'nms' not in family.__name__])
def test_with_care_any_layout_gives_the_results_of_contiguous_maps(family):
    wrong = 0
    for index, (_, run) in enumerate(itertools.islice(family(torch.Generator().manual_seed(0), 'cpu'), 108)):
        if index % 7 in (0, 5):  # a sample of the cases
            expected = run(operators.StandIn(), torch.contiguous_format)
            for name, results in run(CAREFUL, torch.channels_last).items():
                torch.testing.assert_close(results, expected[name], rtol=0, atol=1e-4)
            raw = run(RAW, torch.channels_last)
            wrong += sum(not torch.allclose(a, b) for name in raw
                         for a, b in zip(raw[name], expected[name], strict=True))
    assert wrong or family.__name__ in ('attention_cases', 'focal_loss_cases')  # these take no maps


def test_with_care_bfloat16_and_mixed_dtypes_are_float32_inside(mmcv_ops, monkeypatch):
    """Features in bfloat16 with float32 RoIs, as under autocast: forward, backward, and what is returned."""
    monkeypatch.setattr(sys.modules['mmcv.ops.roi_align'], 'ext_module', CAREFUL)
    features = torch.randn(1, 3, 9, 11).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    rois = torch.tensor([[0, 1.37, 2.11, 30.3, 29.7]])
    pool = mmcv_ops.RoIAlign(3, 0.25, 2)
    with pytest.raises(RuntimeError, match='BFloat16'):
        RAW.roi_align_forward(features.detach(), rois, *torch.zeros(3, 1, 3, 3, 3).bfloat16(), 3, 3, 0.25, 2, 1, True)
    result = pool(features, rois)
    result.sum().backward()
    wide = features.detach().float().requires_grad_()
    expected = pool(wide, rois)
    expected.sum().backward()
    assert result.equal(expected.bfloat16()) and features.grad.equal(wide.grad.bfloat16())

    shapes, starts = torch.tensor([[3, 4]]), torch.tensor([0])
    value, places, weight = torch.rand(1, 12, 2, 4), torch.rand(1, 5, 2, 1, 3, 2), torch.rand(1, 5, 2, 1, 3)
    attended = CAREFUL.ms_deform_attn_forward(value.bfloat16(), shapes, starts, places, weight, 64)
    wide = CAREFUL.ms_deform_attn_forward(value.bfloat16().float(), shapes, starts, places, weight, 64)
    assert attended.dtype == torch.bfloat16 and attended.equal(wide.bfloat16())


def test_compiled_operators_are_loaded_when_used_and_unknown_ones_are_left_alone(tmp_path, monkeypatch):
    fake_mmcv(tmp_path, monkeypatch, "def nms(boxes, scores, iou_threshold, offset):\n"
                                     "    return boxes.is_contiguous(), boxes.dtype, iou_threshold, offset\n"
                                     "def tin_shift(x):\n    return x.is_contiguous()\n")
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    operators.install()
    module = sys.modules.pop('mmcv._ext')
    boxes = torch.zeros(4, 3, dtype=torch.bfloat16).T
    assert module.nms(boxes, torch.zeros(3), iou_threshold=0.5, offset=0) == (True, torch.float32, 0.5, 0)
    assert not module.tin_shift(boxes)
    with pytest.raises(AttributeError):
        module.operator('something_else')


# ------------------------------------------------------------------------------------------------ the tool, compiled
@pytest.mark.skipif(operators.compiled(), reason='this mmcv brings compiled operators')
def test_the_tool_says_which_operators_are_in_use(capsys):
    check_ops.main([])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    count = len(operators.OPERATORS)
    assert lines[1:count + 1] == [[name, 'torch'] for name in operators.OPERATORS]
    assert lines[count + 1][1:] == ['others:', 'unavailable'] and len(lines) == count + 2


@pytest.mark.skipif(not operators.compiled(), reason='needs an mmcv with compiled operators, see docs/operators.md')
def test_ours_equal_the_compiled_operators():
    check_rows(comparison.compare(operators.load_compiled()), at_least=12)


@pytest.mark.skipif(not operators.compiled(), reason='needs an mmcv with compiled operators, see docs/operators.md')
def test_compiled_operators_need_the_care_that_channels_last_maps_get():
    rows = comparison.compare_layouts(operators.load_compiled())
    assert len(rows) >= 12 and {row['careful'] for row in rows} == {0}
    wrong = {row['operator'] for row in rows if row['wrong'] is None or row['wrong'] > 0.1}
    assert {'roi_align_forward', 'deform_conv_forward', 'psamask_forward'} <= wrong


@pytest.mark.slow
@pytest.mark.skipif('MMCV_SOURCE' not in os.environ, reason="MMCV_SOURCE names no folder of mmcv's sources")
def test_ours_equal_mmcvs_kernels_for_gpus():
    check_rows(comparison.compare(comparison.build_gpu_kernels(os.environ['MMCV_SOURCE'])), at_least=14)


def check_rows(rows, at_least):
    """Equal but for the order of float32 sums; the largest differences that were seen are in docs/operators.md."""
    cases = Counter()
    for row in rows:
        cases[row['operator']] += row['cases']
    assert len(cases) >= at_least and min(cases.values()) >= 16
    for row in rows:
        assert row['operator'] == 'nms' and 'tied' in row['option'] or row['differ'] == 0, row
        assert row['largest'] <= 1e-3, row


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_the_gpu_agrees_with_the_cpu(mmcv_ops, dtype):
    generator = torch.Generator().manual_seed(7)
    boxes, scores = random_boxes(300, generator)
    for offset in (0, 1):
        kept = mmcv_ops.nms(boxes.cuda(), scores.cuda(), 0.55, offset=offset)[1]
        assert kept.is_cuda and kept.cpu().equal(mmcv_ops.nms(boxes, scores, 0.55, offset=offset)[1])
    dets, kept = mmcv_ops.soft_nms(boxes.cuda(), scores.cuda())
    assert kept.is_cuda and dets.cpu().equal(mmcv_ops.soft_nms(boxes, scores)[0])
    rois = random_rois(40, 2, generator)
    for mode in ('avg', 'max'):
        results = []
        for device in ('cpu', 'cuda'):
            features = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(8)).to(device, dtype)
            features.requires_grad_()
            pooled = mmcv_ops.RoIAlign(7, 0.25, 0, mode)(features, rois.to(device))
            pooled.float().square().sum().backward()
            results.append([pooled.detach().float().cpu(), features.grad.float().cpu()])
        tolerance = dict(atol=1e-4, rtol=1e-4) if dtype == torch.float32 else dict(atol=0.1, rtol=0.02)
        for cpu, cuda in zip(*results, strict=True):
            torch.testing.assert_close(cuda, cpu, **tolerance)
