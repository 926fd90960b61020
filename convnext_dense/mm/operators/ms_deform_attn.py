"""Multi-scale deformable attention (Zhu et al. 2021, equation 3) with grid_sample; mmcv calls these on GPUs only."""
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .common import check_devices, wide


@torch.no_grad()
def ms_deform_attn_forward(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, sampling_loc: Tensor,
                           attn_weight: Tensor, im2col_step: int) -> Tensor:
    """Weighted sums of samples from several maps; computes in float32 whatever half precision the tensors have.

    Args:
        value: (N, keys, heads, D), the pixels of all maps one after the other.
        spatial_shapes: (levels, 2) height and width of each map, int64.
        level_start_index: (levels,) first key of each map; follows from the shapes.
        sampling_loc: (N, queries, heads, levels, points, 2) as x, y in [0, 1] of the map.
        attn_weight: (N, queries, heads, levels, points).
        im2col_step: images the compiled operator takes at a time; not needed here.
    Returns:
        (N, queries, heads * D) in the dtype of ``value``.
    """
    check_devices('ms_deform_attn_forward', value=value, sampling_loc=sampling_loc, attn_weight=attn_weight)
    dtype = wide(value)
    batch, _, heads, channels = value.shape
    total = value.new_zeros(batch * heads, channels, sampling_loc.shape[1], dtype=dtype)
    for level, keys, shape in _levels(spatial_shapes):
        total += _level(value[:, keys].to(dtype), shape, sampling_loc[:, :, :, level].to(dtype),
                        attn_weight[:, :, :, level].to(dtype))
    return total.view(batch, heads * channels, -1).transpose(1, 2).contiguous().to(value.dtype)


@torch.no_grad()
def ms_deform_attn_backward(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, sampling_loc: Tensor,
                            attn_weight: Tensor, grad_output: Tensor, grad_value: Tensor, grad_sampling_loc: Tensor,
                            grad_attn_weight: Tensor, im2col_step: int) -> None:
    """Adds the gradients to ``grad_*``; one level's samples are in memory at a time; arguments as above."""
    check_devices('ms_deform_attn_backward', value=value, sampling_loc=sampling_loc, grad_output=grad_output)
    dtype = wide(value)
    batch, _, heads, channels = value.shape
    grad = grad_output.to(dtype).transpose(1, 2).reshape(batch * heads, channels, -1)
    for level, keys, shape in _levels(spatial_shapes):
        parts = (value[:, keys], sampling_loc[:, :, :, level], attn_weight[:, :, :, level])
        parts = [part.detach().to(dtype, copy=True).requires_grad_() for part in parts]
        with torch.enable_grad():
            result = _level(parts[0], shape, *parts[1:])
        by_value, by_place, by_weight = torch.autograd.grad(result, parts, grad)
        grad_value[:, keys] += by_value
        grad_sampling_loc[:, :, :, level] += by_place
        grad_attn_weight[:, :, :, level] += by_weight


def _levels(spatial_shapes: Tensor) -> list[tuple[int, slice, tuple[int, int]]]:
    """Number, keys and (height, width) of each map."""
    levels, start = [], 0
    for level, (height, width) in enumerate(spatial_shapes.tolist()):
        levels.append((level, slice(start, start + height * width), (height, width)))
        start += height * width
    return levels


def _level(value: Tensor, shape: tuple[int, int], places: Tensor, weight: Tensor) -> Tensor:
    """Sum over the points of one map: (N * heads, D, queries).

    Args:
        value: (N, height * width, heads, D).
        places: (N, queries, heads, points, 2).
        weight: (N, queries, heads, points).
    """
    maps = value.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, shape)
    grid = 2 * places.transpose(1, 2).flatten(0, 1) - 1
    samples = grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
    return (samples * weight.transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
