"""RoIPool and deformable RoI pooling against loops over boxes, bins and samples; gradients by autograd through them."""
import math

import pytest
import torch

torch.manual_seed(0)
INSIDE = [[0, 3, 5, 60, 41], [1, 10.5, 2.25, 30.75, 50], [1, 0, 0, 63, 55], [0, 20, 20, 21, 21.5]]


def loop_roi_pool(features, rois, size, scale):
    """The largest feature of each bin, one bin at a time (mmcv's convention: bins are not rounded)."""
    height, width = features.shape[2:]
    results = []
    for image, x1, y1, x2, y2 in rois.tolist():
        start, extent = (y1 * scale, x1 * scale), ((y2 + 1 - y1) * scale, (x2 + 1 - x1) * scale)
        for row in range(size[0]):
            for column in range(size[1]):
                first = [math.floor(start[a] + at * extent[a] / size[a]) for a, at in enumerate((row, column))]
                last = [math.ceil(start[a] + (at + 1) * extent[a] / size[a]) for a, at in enumerate((row, column))]
                rows = range(max(first[0], 0), min(last[0], height))
                columns = range(max(first[1], 0), min(last[1], width))
                if not rows or not columns or min(extent) <= 0:
                    results.append(features[0, :, 0, 0] * 0)
                    continue
                block = features[int(image), :, rows.start:rows.stop, columns.start:columns.stop]
                results.append(block.flatten(1).max(1).values)
    return torch.stack(results).reshape(len(rois), *size, -1).permute(0, 3, 1, 2)


def bilinear(plane, y, x):
    """Features (C,) at a point well inside the map, differentiable by the point, too."""
    top, left = int(y), int(x)  # both are positive
    upper = plane[:, top, left] * (left + 1 - x) + plane[:, top, left + 1] * (x - left)
    lower = plane[:, top + 1, left] * (left + 1 - x) + plane[:, top + 1, left + 1] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def loop_deform_roi_pool(features, rois, offset, size, scale, ratio, gamma):
    """Deformable RoI pooling one sample at a time; every sample must lie inside the map."""
    results = []
    for roi, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (corner * scale - 0.5 for corner in corners)
        step = [(y2 - y1) / size[0], (x2 - x1) / size[1]]
        count = [ratio or math.ceil(step[0]), ratio or math.ceil(step[1])]
        for row in range(size[0]):
            for column in range(size[1]):
                top, left = y1 + row * step[0], x1 + column * step[1]
                if offset is not None:
                    left = left + gamma * (x2 - x1) * offset[roi, 0, row, column]
                    top = top + gamma * (y2 - y1) * offset[roi, 1, row, column]
                samples = [bilinear(features[int(image)], top + (i + 0.5) * step[0] / count[0],
                                    left + (j + 0.5) * step[1] / count[1])
                           for i in range(count[0]) for j in range(count[1])]
                results.append(torch.stack(samples).mean(0))
    return torch.stack(results).reshape(len(rois), *size, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_roi_pool_and_its_gradient_equal_a_loop(mmcv_ops, layout):
    features = torch.randn(2, 3, 9, 13).to(memory_format=layout).requires_grad_()
    rois = torch.tensor([[0, 3, 5, 60, 41], [1, -20, -9, 30.75, 90], [1, 70, 10, 150, 30], [0, 20, 20, 12, 25],
                         [1, 8, 8, 8, 8]])  # inside, past the border, mostly outside, of negative size, one pixel
    got = mmcv_ops.RoIPool((2, 3), 1 / 8)(features, rois)
    expected = loop_roi_pool(features, rois, (2, 3), 1 / 8)
    assert got.equal(expected)
    assert (expected == 0).any() and expected[3].abs().sum() == 0
    weight = torch.randn(got.shape)
    gradients = [torch.autograd.grad((result * weight).sum(), features)[0] for result in (got, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)


@pytest.mark.parametrize('moved', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_deform_roi_pool_and_its_gradients_equal_a_loop(mmcv_ops, ratio, moved):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 3, 24, 26, generator=generator, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor(INSIDE, dtype=torch.float64) + torch.tensor([0, 16, 16, 16, 16])
    offset = torch.randn(4, 2, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True) if moved else None
    got = mmcv_ops.DeformRoIPool((2, 3), 1 / 4, ratio, 0.1)(features, rois, offset)
    expected = loop_deform_roi_pool(features, rois, offset, (2, 3), 1 / 4, ratio, 0.1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    weight = torch.randn(got.shape, generator=generator, dtype=torch.float64)
    inputs = (features, offset) if moved else (features,)
    for ours, theirs in zip(*(torch.autograd.grad((result * weight).sum(), inputs) for result in (got, expected)),
                            strict=True):
        assert theirs.abs().max() > 0.01
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize('layer', ['DeformRoIPoolPack', 'ModulatedDeformRoIPoolPack'])
def test_fresh_packs_pool_as_roi_align_does(mmcv_ops, layer):
    """Their offsets start at zero and the modulation at one half."""
    features, rois = torch.randn(2, 4, 16, 16, requires_grad=True), torch.tensor(INSIDE)
    pack = getattr(mmcv_ops, layer)(3, 4, deform_fc_channels=8, spatial_scale=0.25, sampling_ratio=2)
    got = pack(features, rois)
    expected = mmcv_ops.RoIAlign(3, 0.25, 2)(features, rois) * (0.5 if layer.startswith('Mod') else 1)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    got.square().sum().backward()
    assert pack.offset_fc[-1].bias.grad.abs().sum() > 0


@pytest.mark.parametrize('layer', ['RoIPool', 'DeformRoIPool'])
def test_no_rois_give_nothing_and_no_gradient(mmcv_ops, layer):
    features = torch.randn(2, 3, 8, 8, requires_grad=True)
    result = getattr(mmcv_ops, layer)((2, 3), 0.25)(features, torch.zeros(0, 5))
    assert result.shape == (0, 3, 2, 3)
    result.sum().backward()
    assert features.grad.equal(torch.zeros_like(features))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('layer', ['RoIPool', 'DeformRoIPool'])
def test_half_precision_rounds_the_result_only(mmcv_ops, layer, dtype):
    features = torch.randn(2, 3, 16, 16).to(dtype).requires_grad_()
    pool, rois = getattr(mmcv_ops, layer)((2, 3), 0.25), torch.tensor(INSIDE)
    result = pool(features, rois)
    result.sum().backward()
    wide = features.detach().float().requires_grad_()
    expected = pool(wide, rois)
    expected.sum().backward()
    assert result.equal(expected.to(dtype)) and features.grad.equal(wide.grad.to(dtype))


@pytest.mark.parametrize('layer', ['RoIPool', 'DeformRoIPool'])
def test_rois_that_make_no_sense_are_refused(mmcv_ops, layer):
    pool, features = getattr(mmcv_ops, layer)(2, 1.), torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match='finite'):
        pool(features, torch.tensor([[0, 1, 1, math.nan, 5]]))
    with pytest.raises(ValueError, match='index one of 2 images, found 2'):
        pool(features, torch.tensor([[2., 1, 1, 4, 5]]))
