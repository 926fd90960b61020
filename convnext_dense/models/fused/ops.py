"""Operators of the block in one or two passes over memory, for GPUs; the plain forms beside them say what they compute.

Each is an operator of this package (``torch.ops.convnext_dense.*``) with a form for tracing: torch.compile takes it as
it is. Maps are contiguous (N, H, W, C). Values are computed in float32 (float64 for float64) whatever the type of
the maps, and parameters may have another type than these.
"""
from contextlib import nullcontext
from math import prod

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

EPS = 1e-6
CHUNKS = 512  # at most, per kernel: parts that are summed by programs of their own
ELEMENTS = 1024  # of a tile


def depthwise_norm_reference(x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor,
                             eps: float = EPS) -> Tensor:
    """The plain form of `depthwise_norm`."""
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=3, groups=len(weight)).permute(0, 2, 3, 1)
    return F.layer_norm(y, y.shape[-1:], gamma, beta, eps)


def grn_reference(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = EPS) -> Tensor:
    """The plain form of `grn`."""
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    return torch.addcmul(beta, x, gamma * (norm / (norm.mean(-1, keepdim=True) + eps)) + 1)


def residual_reference(x: Tensor, y: Tensor, gamma: Tensor, keep: Tensor | None) -> Tensor:
    """The plain form of `residual`."""
    return torch.addcmul(x, y, gamma if keep is None else keep.view(-1, 1, 1, 1) * gamma)


def power_of_two(value: int) -> int:
    return 1 << (value - 1).bit_length()


def whole_tile(channels: int) -> dict:
    """Tiles that hold all channels: at least 1024 values, eight a thread."""
    block = power_of_two(channels)
    tile = max(1, ELEMENTS // block)
    return dict(TILE=tile, BLOCK=block, num_warps=min(16, max(4, tile * block // 256)))


def part_tile(channels: int, elements: int = ELEMENTS) -> dict:
    """Tiles of up to 128 channels."""
    block = min(128, power_of_two(channels))
    return dict(TILE=elements // block, BLOCK=block, num_warps=4)


def accumulator(x: Tensor) -> dict:
    return dict(DOUBLE=x.dtype == torch.float64)


def launch(kernel: str, grid: tuple[int, ...], *args, **options) -> None:
    """Start a kernel of `triton_kernels` on the device of its first argument."""
    from . import triton_kernels
    with torch.cuda.device(args[0].device) if args[0].is_cuda else nullcontext():
        getattr(triton_kernels, kernel)[grid](*args, **options, enable_fp_fusion=True)


def sum_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def packed(weight: Tensor) -> Tensor:
    """A depthwise weight (C, 1, 7, 7) as (49, C), so that neighbouring channels lie together."""
    return weight.reshape(len(weight), 49).t().contiguous()


# --- depthwise 7x7 convolution + bias + LayerNorm

def run_depthwise_norm(x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, eps: float,
                   dtype: torch.dtype) -> Tensor:
    """LayerNorm over channels of a depthwise 7x7 convolution with bias, size kept.

    Args:
        x: (N, H, W, C), contiguous.
        weight, bias: of the convolution, (C, 1, 7, 7) and (C,).
        gamma, beta: of the norm, (C,).
        eps: added to the variance.
        dtype: of the result.
    """
    samples, height, width, channels = x.shape
    out = x.new_empty(x.shape, dtype=dtype)
    tile = whole_tile(channels)
    grid = cdiv(width, tile['TILE']), cdiv(height, 4), samples
    launch('depthwise_norm', grid, x, packed(weight), bias, gamma, beta, out, height, width, channels, eps, ROWS=4,
           **tile, **accumulator(x))
    return out


depthwise_norm = custom_op('convnext_dense::depthwise_norm', run_depthwise_norm, mutates_args=())


@depthwise_norm.register_fake
def depthwise_norm_shape(x, weight, bias, gamma, beta, eps, dtype):
    return x.new_empty(x.shape, dtype=dtype)


def run_depthwise_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor,
                            eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias, gamma and beta; the convolution is computed again, so nothing else is kept."""
    samples, height, width, channels = x.shape
    taps, acc = packed(weight), accumulator(x)
    tile = whole_tile(channels)
    rows = 4 if channels <= 1024 else 2 if channels <= 2048 else 1  # as many as fit into registers
    tiles = cdiv(width, tile['TILE']) * cdiv(height, rows) * samples
    programs = min(tiles, CHUNKS)
    change = x.new_empty(x.shape, dtype=grad.dtype)
    sums = x.new_empty((programs, 3, channels), dtype=sum_dtype(x))
    launch('depthwise_norm_backward', (programs,), x, taps, bias, gamma, grad, change, sums, height, width, channels,
           eps, tiles, programs, ROWS=rows, **tile, **acc)
    for_gamma, for_beta, for_bias = (part.sum(0) for part in sums.unbind(1))

    part = part_tile(channels, ELEMENTS // 2)
    for_x, across = torch.empty_like(x), cdiv(width, part['TILE'])
    launch('depthwise_input_gradient', (across * cdiv(channels, part['BLOCK']), cdiv(height, 4), samples), change,
           taps, for_x, height, width, channels, across, ROWS=4, **part, **acc)

    part = part_tile(channels)
    chunk = cdiv(samples * height, max(1, CHUNKS // cdiv(channels, part['BLOCK']) // 7))
    chunks = cdiv(samples * height, chunk)
    sums = x.new_empty((chunks, 49, channels), dtype=sum_dtype(x))
    launch('depthwise_weight_gradient', (cdiv(channels, part['BLOCK']), 7, chunks), x, change, sums, samples, height,
           width, channels, chunk, **part, **acc)
    for_weight = sums.sum(0).t().reshape(weight.shape)
    return (for_x, for_weight.to(weight.dtype), for_bias.to(bias.dtype), for_gamma.to(gamma.dtype),
            for_beta.to(gamma.dtype))


depthwise_norm_backward = custom_op('convnext_dense::depthwise_norm_backward', run_depthwise_norm_backward,
                                    mutates_args=())


@depthwise_norm_backward.register_fake
def depthwise_norm_backward_shape(grad, x, weight, bias, gamma, eps):
    return (torch.empty_like(x), weight.new_empty(weight.shape), torch.empty_like(bias), torch.empty_like(gamma),
            torch.empty_like(gamma))


def save_depthwise_norm(ctx, inputs, output) -> None:
    x, weight, bias, gamma, _, ctx.eps, _ = inputs
    ctx.save_for_backward(x, weight, bias, gamma)


def depthwise_norm_autograd(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, gamma = ctx.saved_tensors
    return (*depthwise_norm_backward(grad.contiguous(), x, weight, bias, gamma, ctx.eps), None, None)


depthwise_norm.register_autograd(depthwise_norm_autograd, setup_context=save_depthwise_norm)


@register_flop_formula(torch.ops.convnext_dense.depthwise_norm)
def depthwise_norm_flops(x_shape, *args, **kwargs) -> int:
    """Of the convolution, as FlopCounterMode counts ``F.conv2d``."""
    return 2 * 49 * prod(x_shape)


@register_flop_formula(torch.ops.convnext_dense.depthwise_norm_backward)
def depthwise_norm_backward_flops(grad_shape, *args, **kwargs) -> int:
    """Of the gradients of input and weight."""
    return 2 * 2 * 49 * prod(grad_shape)


# --- global response normalisation

def position_chunks(x: Tensor, part: dict) -> tuple[int, int, int]:
    """Positions a chunk, and grid of chunks and channel blocks, for sums over the positions of a sample."""
    positions, blocks = x.shape[1] * x.shape[2], cdiv(x.shape[3], part['BLOCK'])
    chunk = cdiv(positions, max(1, min(cdiv(positions, part['TILE']), CHUNKS // (blocks * len(x)))))
    return chunk, blocks, cdiv(positions, chunk)


def run_grn(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Global response normalisation of (N, H, W, C); gamma and beta are (C,).

    Returns:
        the result, and for the backward pass (N, C) norms and scales.
    """
    samples, height, width, channels = x.shape
    part, acc = part_tile(channels), accumulator(x)
    chunk, blocks, chunks = position_chunks(x, part)
    squares = x.new_empty((samples, chunks, channels), dtype=sum_dtype(x))
    launch('sums_over_positions', (blocks, chunks, samples), x, x, squares, height * width, channels, chunk,
           BACKWARD=False, **part, **acc)
    norm, scale = (x.new_empty((samples, channels), dtype=sum_dtype(x)) for _ in range(2))
    launch('grn_scale', (samples,), squares, gamma, norm, scale, chunks, channels, eps, BLOCK=power_of_two(channels),
           num_warps=8, **acc)
    out = torch.empty_like(x)
    launch('scale_and_add', (blocks, cdiv(height * width, part['TILE']), samples), x, x, scale, beta, out,
           height * width, channels, HAS_SHIFT=True, HAS_Y=False, **part, **acc)
    return out, norm, scale


grn = custom_op('convnext_dense::grn', run_grn, mutates_args=())


@grn.register_fake
def grn_shape(x, gamma, beta, eps):
    small = [x.new_empty((x.shape[0], x.shape[3]), dtype=sum_dtype(x)) for _ in range(2)]
    return torch.empty_like(x), *small


def run_grn_backward(grad: Tensor, x: Tensor, gamma: Tensor, norm: Tensor, scale: Tensor,
                 eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gamma and beta."""
    samples, height, width, channels = x.shape
    part, acc = part_tile(channels), accumulator(x)
    chunk, blocks, chunks = position_chunks(x, part)
    sums = x.new_empty((samples, chunks, 2, channels), dtype=sum_dtype(x))
    launch('sums_over_positions', (blocks, chunks, samples), x, grad, sums, height * width, channels, chunk,
           BACKWARD=True, **part, **acc)
    factor, for_gamma = torch.empty_like(norm), torch.empty_like(norm)
    launch('grn_scale_backward', (samples,), sums, norm, gamma, factor, for_gamma, chunks, channels, eps,
           BLOCK=power_of_two(channels), num_warps=8, **acc)
    for_x = torch.empty_like(x)
    launch('scale_and_add', (blocks, cdiv(height * width, part['TILE']), samples), grad, x, scale, factor, for_x,
           height * width, channels, HAS_SHIFT=False, HAS_Y=True, **part, **acc)
    return for_x, for_gamma.sum(0).to(gamma.dtype), sums[:, :, 1].sum((0, 1)).to(gamma.dtype)


grn_backward = custom_op('convnext_dense::grn_backward', run_grn_backward, mutates_args=())


@grn_backward.register_fake
def grn_backward_shape(grad, x, gamma, norm, scale, eps):
    return torch.empty_like(x), torch.empty_like(gamma), torch.empty_like(gamma)


def save_grn(ctx, inputs, output) -> None:
    x, gamma, _, ctx.eps = inputs
    ctx.save_for_backward(x, gamma, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def grn_autograd(ctx, grad: Tensor, *unused) -> tuple[Tensor | None, ...]:
    return (*grn_backward(grad.contiguous(), *ctx.saved_tensors, ctx.eps), None)


grn.register_autograd(grn_autograd, setup_context=save_grn)


# --- layer scale + drop path + residual sum

def run_residual(x: Tensor, y: Tensor, gamma: Tensor, keep: Tensor | None, dtype: torch.dtype) -> Tensor:
    """x + y * gamma * keep in ``dtype``: maps (N, H, W, C), gamma (C,) per channel, keep (N,) per sample or none."""
    samples, height, width, channels = x.shape
    out = x.new_empty(x.shape, dtype=dtype)
    part = part_tile(channels)
    grid = cdiv(channels, part['BLOCK']), cdiv(height * width, part['TILE']), samples
    launch('residual', grid, x, y, gamma, gamma if keep is None else keep, out, height * width, channels,
           HAS_KEEP=keep is not None, **part, **accumulator(out))
    return out


residual = custom_op('convnext_dense::residual', run_residual, mutates_args=())


@residual.register_fake
def residual_shape(x, y, gamma, keep, dtype):
    return x.new_empty(x.shape, dtype=dtype)


def run_residual_backward(grad: Tensor, y: Tensor, gamma: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradients of y and gamma."""
    samples, height, width, channels = y.shape
    part = part_tile(channels)
    chunk, blocks, chunks = position_chunks(y, part)
    for_y, sums = torch.empty_like(y), y.new_empty((samples, chunks, channels), dtype=sum_dtype(grad))
    launch('residual_backward', (blocks, chunks, samples), grad, y, gamma, gamma if keep is None else keep, for_y,
           sums, height * width, channels, chunk, HAS_KEEP=keep is not None, **part, **accumulator(grad))
    return for_y, sums.sum((0, 1)).to(gamma.dtype)


residual_backward = custom_op('convnext_dense::residual_backward', run_residual_backward, mutates_args=())


@residual_backward.register_fake
def residual_backward_shape(grad, y, gamma, keep):
    return torch.empty_like(y), torch.empty_like(gamma)


def save_residual(ctx, inputs, output) -> None:
    x, y, gamma, keep, _ = inputs
    ctx.x_dtype = x.dtype
    ctx.save_for_backward(y, gamma, keep)


def residual_autograd(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    return grad.to(ctx.x_dtype), *residual_backward(grad.contiguous(), *ctx.saved_tensors), None, None


residual.register_autograd(residual_autograd, setup_context=save_residual)
