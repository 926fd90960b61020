"""The convolution of upsampled maps equals plain torch: upsample, concatenate, convolve."""
import random
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convnext_dense.benchmark.backbone import peak_memory
from convnext_dense.segmentation import upsample_conv
from convnext_dense.segmentation.upsample_conv import UpsampleConv2d, upsample_conv2d


def plain(maps, weight, bias=None, align_corners=False):
    """What it must equal, step by step."""
    size = maps[0].shape[2:]
    maps = [F.interpolate(m, size=size, mode='bilinear', align_corners=align_corners) for m in maps]
    return F.conv2d(torch.cat(maps, 1), weight, bias, padding=weight.shape[-1] // 2)


def random_case(seed):
    """Sizes of a first map and of up to four others, kernel size, align_corners; every fifth map is a large one."""
    draw = random.Random(seed)
    limit = 290 if seed % 5 == 0 else 30
    first = (draw.randint(1, limit), draw.randint(1, limit))
    sizes = [first] + [(draw.randint(1, first[0] + 1), draw.randint(1, first[1] + 1)) for _ in range(seed % 5)]
    return sizes, draw.choice((1, 3, 3, 5, 7)), draw.random() < 0.5, draw.randint(1, 3)


def tensors(seed, dtype):
    sizes, kernel, align_corners, batch = random_case(seed)
    generator = torch.Generator().manual_seed(seed)
    channels = [2 + (seed + i) % 3 for i in range(len(sizes))]
    maps = [torch.randn(batch, c, *size, generator=generator, dtype=torch.float64).to(dtype)
            for c, size in zip(channels, sizes, strict=True)]
    weight = torch.randn(4, sum(channels), kernel, kernel, generator=generator, dtype=torch.float64).to(dtype)
    bias = torch.randn(4, generator=generator, dtype=torch.float64).to(dtype)
    return maps, weight, bias, align_corners


def relative_error(found, expected):
    return ((found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-30)).item()


@pytest.mark.parametrize('seed', range(40))
def test_values_and_gradients_are_those_of_plain_torch(seed):
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        maps, weight, bias, align_corners = tensors(seed, dtype)
        inputs = [tensor.requires_grad_() for tensor in (*maps, weight, bias)]
        expected, found = (function(maps, weight, bias, align_corners) for function in (plain, upsample_conv2d))
        assert found.shape == expected.shape and relative_error(found, expected) < tolerance
        seed_grad = torch.randn(expected.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
        pairs = zip(torch.autograd.grad(found, inputs, seed_grad), torch.autograd.grad(expected, inputs, seed_grad),
                    strict=True)
        for index, (a, b) in enumerate(pairs):
            assert relative_error(a, b) < tolerance, index


def test_gradients_of_gradients():
    maps, weight, bias, align_corners = tensors(3, torch.float64)
    maps = [m[:1, :, :7, :7].requires_grad_() for m in maps]
    function = partial(upsample_conv2d, align_corners=align_corners)
    call = lambda weight, *maps: function(maps, weight)  # noqa: E731
    assert torch.autograd.gradcheck(call, (weight.requires_grad_(), *maps), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (weight, *maps), fast_mode=True)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_rounds_twice_as_much_at_most(dtype):
    """Distance to float64 of the same half-precision inputs, root mean square over eight cases.

    Plain torch rounds after upsampling and convolution, ours after products, columns, rows and sums.
    """
    errors = {plain: [], upsample_conv2d: []}
    for seed in range(2, 10):
        maps, weight, bias, align_corners = tensors(seed, dtype)
        exact = plain([m.double() for m in maps], weight.double(), bias.double(), align_corners)
        for function, found in errors.items():
            result = function(maps, weight, bias, align_corners)
            assert result.dtype == dtype
            found.append(((result.double() - exact).pow(2).mean() / exact.pow(2).mean()).sqrt())
    assert sum(errors[upsample_conv2d]) < 2 * sum(errors[plain])


def test_blocks_hold_all_that_is_not_zero(monkeypatch):
    """Products by blocks of any size see the same as one product with the whole matrix."""
    for seed in range(0, 60, 3):
        sizes, kernel, align_corners, _ = random_case(seed)
        (new, _), (old, _) = sizes[0], sizes[-1]
        x = torch.randn(1, old * kernel, 2, dtype=torch.float64)
        matrix = upsample_conv.interpolation_matrix(old, new, kernel, align_corners, x)
        for block in (1, 5, 64):
            monkeypatch.setattr(upsample_conv, 'BLOCK', block)
            assert relative_error(upsample_conv.apply_band(matrix, x, kernel), matrix @ x) < 1e-12


def test_layer_is_a_convolution():
    """One tensor in: nn.Conv2d with the same weights; several: those that are concatenated before it."""
    torch.manual_seed(0)
    layer, conv = UpsampleConv2d(6, 4, 5), nn.Conv2d(6, 4, 5, padding=2)
    conv.load_state_dict(layer.state_dict())
    x, small = torch.randn(2, 6, 9, 11), torch.randn(2, 3, 4, 5)
    assert torch.equal(layer(x), conv(x))
    assert relative_error(layer([x[:, :3], small]), plain([x[:, :3], small], conv.weight, conv.bias)) < 1e-6
    with pytest.raises(ValueError, match='kernel_size must be odd to keep the size of a map, got 4'):
        UpsampleConv2d(6, 4, 4)


def test_less_memory_than_plain_torch():
    """Peak of a forward pass, and of forward and backward; channels-last, as behind our backbone."""
    maps = [torch.randn(1, 16, 96 >> i, 96 >> i).contiguous(memory_format=torch.channels_last) for i in range(4)]
    weight = torch.randn(16, 64, 3, 3)

    def train(function):
        inputs = [tensor.detach().requires_grad_() for tensor in (*maps, weight)]
        function(inputs[:-1], inputs[-1]).sum().backward()

    for step in (lambda function: function(maps, weight), train):
        ours, theirs = (peak_memory(partial(step, function), 'cpu') for function in (upsample_conv2d, plain))
        assert ours < 0.8 * theirs
