"""Convolution of bilinearly upsampled maps, with the products at each map's own resolution; needs torch only.

A convolution multiplies channels, bilinear upsampling mixes positions, and both are linear, so they commute: multiply
the small map by the kernel's k x k slices (each a 1x1 convolution), upsample the results, and add them with their
shifts, zero beyond the border. Upsampling and shift along an axis are one small matrix, so both are matrix products.
A 3x3 convolution then costs 1/s^2 of the multiplications for a map that is upsampled by s.
"""
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.kernels import exporting, linear

BLOCK = 64  # output positions of one product with an interpolation matrix; beyond it most of the matrix is zero


class UpsampleConv2d(nn.Conv2d):
    """nn.Conv2d of several maps, upsampled bilinearly to the size of the first and concatenated by channels.

    The parameters are those of nn.Conv2d with ``in_channels`` the sum of all maps' channels. Called with one tensor it
    is nn.Conv2d.

    Args:
        in_channels, out_channels: as of nn.Conv2d.
        kernel_size: odd; the size of the first map is kept.
        bias: as of nn.Conv2d.
        align_corners: as of ``torch.nn.functional.interpolate``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, bias: bool = True,
                 align_corners: bool = False):
        if kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd to keep the size of a map, got {kernel_size}')
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.align_corners = align_corners

    def forward(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """Maps (N, C_i, H_i, W_i), or their concatenation (N, in_channels, H, W), to (N, out_channels, H, W)."""
        if isinstance(maps, Tensor):
            return super().forward(maps)
        return upsample_conv2d(maps, self.weight, self.bias, self.align_corners)


def upsample_conv2d(maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None,
                    align_corners: bool = False) -> Tensor:
    """``conv2d(cat([interpolate(m, maps[0].shape[2:], mode='bilinear') for m in maps], 1), weight, bias, 'same')``.

    Equal to float tolerance, with fewer multiplications and without the upsampled maps in memory. Differentiable,
    also twice, with matrix products and convolutions only, which are deterministic on a GPU, too.

    Args:
        maps: (N, C_i, H_i, W_i) each, of any sizes; the first has the size of the result.
        weight: (O, sum of C_i, k, k), k odd.
        bias: (O,).
        align_corners: as of ``torch.nn.functional.interpolate``.

    Returns:
        (N, O, H_0, W_0).
    """
    # channels-last: a row of the map is then a matrix of positions by channels
    maps = [m.contiguous(memory_format=torch.channels_last) for m in maps]
    size, padding = maps[0].shape[2:], weight.shape[-1] // 2
    slices = weight.split([m.shape[1] for m in maps], dim=1)
    # a graph for any size must not ask whether a map happens to have the size of the first
    full = [0] if exporting() else [i for i, m in enumerate(maps) if m.shape[2:] == size]
    total = None
    for i, m in enumerate(maps):
        if i not in full:
            part = upsample_conv2d_one(m, slices[i], size, align_corners)
            total = part if total is None else total.add_(part)
    out = F.conv2d(concatenate([maps[i] for i in full]), concatenate([slices[i] for i in full]), bias, padding=padding)
    return out if total is None else out.add_(total.permute(0, 3, 1, 2))


def upsample_conv2d_one(x: Tensor, weight: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """The share of one map (N, C, h, w) with its kernel (O, C, k, k), as (N, H, W, O) where ``size`` is (H, W)."""
    batch, _, height, width = x.shape
    channels, kernel = len(weight), weight.shape[-1]
    kernels = weight.permute(2, 3, 0, 1).contiguous()
    rows = interpolation_matrix(height, size[0], kernel, align_corners, x)
    columns = interpolation_matrix(width, size[1], kernel, align_corners, x)
    upsampled = []
    for row in kernels:  # (k, O, C): the kernel's slices of equal vertical shift
        products = linear(x.permute(0, 2, 3, 1), row.flatten(0, 1))  # (N, h, w, k * O)
        products = products.reshape(batch * height, width * kernel, channels)
        upsampled.append(apply_band(columns, products, kernel).view(batch, height, size[1] * channels))
    upsampled = torch.stack(upsampled, 2).view(batch, height * kernel, size[1] * channels)
    return apply_band(rows, upsampled, kernel).view(batch, *size, channels)


def interpolation_matrix(length: int, new_length: int, kernel: int, align_corners: bool, like: Tensor) -> Tensor:
    """Linear interpolation along an axis followed by the shifts of a kernel, zero beyond the border.

    Returns:
        (new_length, length * kernel): for every input position its weights under shifts -(kernel // 2) to
        kernel // 2, with dtype and device of ``like``.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    unit = torch.eye(length, dtype=dtype, device=like.device)
    matrix = F.interpolate(unit[None], size=new_length, mode='linear', align_corners=align_corners)[0]
    matrix = F.pad(matrix, (kernel // 2, kernel // 2))
    shifted = torch.stack([matrix[:, shift:shift + new_length] for shift in range(kernel)], 1)
    return shifted.flatten(0, 1).t().to(like.dtype)


def apply_band(matrix: Tensor, x: Tensor, kernel: int) -> Tensor:
    """``matrix @ x`` of (P, Q * kernel) and (N, Q * kernel, C), leaving out what is zero in an `interpolation_matrix`.

    The input positions that an output position sees grow with it, so that a block of outputs needs a block of inputs.
    """
    new_length, length = matrix.shape[0], x.shape[1] // kernel
    if torch.compiler.is_compiling() or new_length <= BLOCK:  # compiled and exported graphs take any size
        return matrix @ x
    blocks = []
    for start in range(0, new_length, BLOCK):
        stop = min(start + BLOCK, new_length)
        first, last = band(start, stop, kernel, length, new_length)
        blocks.append(matrix[start:stop, first * kernel:last * kernel] @ x[:, first * kernel:last * kernel])
    return torch.cat(blocks, 1)


def band(start: int, stop: int, kernel: int, length: int, new_length: int) -> tuple[int, int]:
    """First and last (exclusive) input position that output positions from ``start`` to ``stop`` may see."""
    # position p lies between inputs p * Q / P - 1 and p * Q / P + 1, for either align_corners
    return (max(0, (start - kernel // 2) * length // new_length - 2),
            min(length, (stop + kernel // 2) * length // new_length + 3))


def concatenate(tensors: Sequence[Tensor]) -> Tensor:
    """``torch.cat`` by channels, without a copy of a single one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, 1)


__all__ = ['UpsampleConv2d', 'upsample_conv2d']
