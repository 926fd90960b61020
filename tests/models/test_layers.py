"""Layers against torch's own operators and the papers' formulas."""
import pytest
import torch
from networks import relative_error
from torch import nn
from torch.nn import functional as F

from convnext_dense.models.kernels import (
    HAS_ONEDNN,
    DepthwiseConv2d,
    Linear,
    depthwise_weight_grad,
    gelu,
    linear,
    onednn_linear,
)
from convnext_dense.models.layers import GRN, LayerNorm2d, drop_path_scale

LINEAR = [linear] + [onednn_linear] * HAS_ONEDNN  # whichever of the two this CPU takes


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_layer_norm_2d(memory_format):
    x = torch.randn(2, 12, 5, 7).contiguous(memory_format=memory_format)
    norm = LayerNorm2d(12)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    expected = F.layer_norm(x.permute(0, 2, 3, 1).contiguous(), (12,), norm.weight, norm.bias, 1e-6)
    assert torch.allclose(norm(x), expected.permute(0, 3, 1, 2), atol=1e-6)


def test_grn_is_the_formula_of_the_paper():
    x = torch.randn(2, 5, 7, 12)
    grn = GRN(12)
    assert torch.equal(grn(x), x), 'identity at the start'
    nn.init.normal_(grn.gamma), nn.init.normal_(grn.beta)
    norm = x.pow(2).sum((1, 2), keepdim=True).sqrt()
    expected = grn.gamma * (x * (norm / (norm.mean(-1, keepdim=True) + 1e-6))) + grn.beta + x
    assert torch.allclose(grn(x), expected, atol=1e-5)


def test_grn_of_a_large_half_precision_map_is_finite():
    """Sums of squares of 3 over 256x256 positions are beyond fp16."""
    grn = GRN(4).half()
    assert grn(torch.full((1, 256, 256, 4), 3.0, dtype=torch.float16)).isfinite().all()


@pytest.mark.parametrize('shape', [(6,), (2, 3, 5, 6)])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('ours', LINEAR)
def test_linear_is_f_linear(ours, shape, bias):
    layer = Linear(6, 9, bias=bias)
    x = torch.randn(shape)[None] if len(shape) == 1 else torch.randn(shape)
    results = []
    for function in (ours, F.linear):
        leaf = x.clone().requires_grad_()
        out = function(leaf, layer.weight, layer.bias)
        inputs = [leaf, layer.weight] + ([layer.bias] if bias else [])
        results.append((out, *torch.autograd.grad(out.pow(3).sum(), inputs)))
    for mine, theirs in zip(*results, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('linear', LINEAR)
def test_linear_gradients_in_float64(linear):
    """The gradient, and the gradient's gradient, beside those of the standard operator in float64."""
    x, weight, bias = (torch.randn(s, requires_grad=True) for s in ((4, 3), (5, 3), (5,)))
    doubled = [t.detach().double().requires_grad_() for t in (x, weight, bias)]

    def second(args, linear):
        first = torch.autograd.grad(linear(*args).pow(3).sum(), args, create_graph=True)
        return torch.autograd.grad(sum(g.pow(2).sum() for g in first), args)

    for ours, exact in zip(second((x, weight, bias), linear), second(doubled, F.linear), strict=True):
        assert relative_error(ours.double(), exact) < 1e-5


@pytest.mark.parametrize('kernel_size', [3, 7, 11])
@pytest.mark.parametrize('size', [(1, 1), (5, 9), (16, 20), (35, 18)])
def test_depthwise_gradients_are_those_of_nn_conv2d(kernel_size, size):
    """Maps smaller than the kernel, smaller, equal and larger than a strip of 16 rows."""
    ours = DepthwiseConv2d(6, kernel_size)
    plain = nn.Conv2d(6, 6, kernel_size, padding=kernel_size // 2, groups=6)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, *size).contiguous(memory_format=torch.channels_last)
    results = []
    for conv in (ours, plain):
        leaf = x.clone().requires_grad_()
        out = conv(leaf)
        results.append((out, *torch.autograd.grad(out.pow(3).sum(), [leaf, conv.weight, conv.bias])))
    for a, b in zip(*results, strict=True):
        assert relative_error(a, b.detach()) < 1e-5


def test_depthwise_gradients_in_float64_are_exact():
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(DepthwiseConv2d(2, 3).double(), x)


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_depthwise_gradients(dtype, autocast):
    """Against float32: within the rounding of the half-precision inputs, in their dtype, under autocast too."""
    conv = DepthwiseConv2d(6, 7)
    x = torch.randn(2, 6, 20, 18).contiguous(memory_format=torch.channels_last)
    expected = torch.autograd.grad(conv(leaf := x.clone().requires_grad_()).sum(), [leaf, conv.weight, conv.bias])
    if not autocast:
        conv, x = conv.to(dtype), x.to(dtype)
    leaf = x.clone().requires_grad_()
    with torch.autocast('cpu', dtype, enabled=autocast):
        out = conv(leaf)
    assert out.dtype == dtype
    found = torch.autograd.grad(out.sum(), [leaf, conv.weight, conv.bias])
    for a, b, like in zip(found, expected, (x, conv.weight, conv.bias), strict=True):
        assert a.dtype == like.dtype and relative_error(a.float(), b) < 1e-2


def test_depthwise_weight_gradient_is_exact_enough_on_a_large_map():
    """Against float64: the float32 sums over 40,000 positions lose no more than the standard operator does."""
    x, grad = (torch.randn(1, 4, 200, 200).contiguous(memory_format=torch.channels_last) for _ in range(2))
    weight = torch.zeros(4, 1, 7, 7)

    def standard(x, grad, weight):
        return torch.ops.aten.convolution_backward(grad, x, weight, None, [1, 1], [3, 3], [1, 1], False, [0, 0], 4,
                                                   [False, True, False])[1]
    exact = standard(x.double(), grad.double(), weight.double())
    ours = relative_error(depthwise_weight_grad(x, grad, 7).double(), exact)
    assert ours < max(2e-6, 2 * relative_error(standard(x, grad, weight).double(), exact))


def test_gelu_works_in_place_only_without_gradients():
    x = torch.randn(100)
    expected = F.gelu(x)
    leaf = x.clone().requires_grad_()
    assert torch.equal(gelu(leaf * 1), expected)
    with torch.no_grad():
        held = x.clone()
        assert gelu(held).data_ptr() == held.data_ptr() and torch.allclose(held, expected, atol=1e-6)


def test_drop_path_keeps_the_mean():
    torch.manual_seed(0)
    scale = drop_path_scale(torch.zeros(20000, 1, 1, 1), 0.3)
    assert scale.shape == (20000, 1, 1, 1) and set(scale.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert abs(scale.mean().item() - 1) < 0.02
