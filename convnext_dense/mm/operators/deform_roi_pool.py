"""Deformable RoI pooling (Dai et al. 2017, section 2.2): RoIAlign whose bins are moved by learned offsets."""
import torch
from torch import Tensor

from .common import RoIBins, check_rois, each_step, neighbours, pixel_rows, surrounding, wide


@torch.no_grad()
def deform_roi_pool_forward(input: Tensor, rois: Tensor, offset: Tensor, output: Tensor, pooled_height: int,
                            pooled_width: int, spatial_scale: float, sampling_ratio: int, gamma: float) -> None:
    """Averages the samples of each moved bin.

    Args:
        input: (N, C, H, W) features.
        rois: (n, 5) as image index, x1, y1, x2, y2, in pixels of the image.
        offset: (n, 2, pooled_height, pooled_width), how far each bin moves in x and y, in parts of the RoI's size
            times ``gamma``; or empty: bins stay.
        output: (n, C, pooled_height, pooled_width), receives the result.
        spatial_scale: feature pixels per image pixel.
        sampling_ratio: samples per bin and direction; 0: as many as the bin has feature pixels, rounded up.
    Raises:
        ValueError: devices differ or an RoI is not finite, has a negative size or names no image.
    """
    check_rois('deform_roi_pool_forward', rois, len(input), True, waits=True, input=input, offset=offset,
               output=output)
    import torchvision.ops  # noqa: F401  (registers the operator)
    dtype = wide(input)
    bins = RoIBins(rois.to(dtype), (pooled_height, pooled_width), spatial_scale, sampling_ratio, aligned=True)
    boxes = _boxes(bins, _moves(bins, offset, gamma))
    pooled = torch.ops.torchvision.roi_align(input.to(dtype), boxes, 1., 1, 1, sampling_ratio, True)
    output.copy_(pooled.view(len(rois), *bins.size, input.shape[1]).permute(0, 3, 1, 2))


@torch.no_grad()
def deform_roi_pool_backward(grad_output: Tensor, input: Tensor, rois: Tensor, offset: Tensor, grad_input: Tensor,
                             grad_offset: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float,
                             sampling_ratio: int, gamma: float) -> None:
    """Adds the gradients to ``grad_input`` and ``grad_offset`` (as ``input`` and ``offset``); the rest as above."""
    check_rois('deform_roi_pool_backward', rois, len(input), True, input=input, offset=offset, grad_output=grad_output)
    import torchvision.ops  # noqa: F401  (registers the operator)
    dtype = wide(input)
    bins = RoIBins(rois.to(dtype), (pooled_height, pooled_width), spatial_scale, sampling_ratio, aligned=True)
    move = _moves(bins, offset, gamma)
    grad = grad_output.to(dtype).permute(0, 2, 3, 1)
    grad_input.add_(torch.ops.torchvision._roi_align_backward(
        grad.reshape(-1, input.shape[1], 1, 1), _boxes(bins, move), 1., 1, 1, *input.shape, sampling_ratio, True))
    if not offset.numel():
        return
    pixels, plane = pixel_rows(input.to(dtype)), input.shape[2] * input.shape[3]
    slope = torch.zeros_like(offset, dtype=dtype)
    for row, column, which in each_step(bins.counts):
        y = bins.place(0, row, which)[:, :, None] + move[which, 1]
        x = bins.place(1, column, which)[:, None, :] + move[which, 0]
        index = surrounding(y, x, input.shape[2:])[0] + (bins.image[which] * plane)[:, None, None]
        values = [torch.linalg.vecdot(grad[which], pixels[index[corner]]) for corner in range(4)]
        slope[which] += _by_place(values, y, x, input.shape[2:])
    reach = gamma * bins.extent.flip(1) / bins.counts.prod(1, keepdim=True).clamp(min=1)
    grad_offset.add_(slope * reach[:, :, None, None])


def _moves(bins: RoIBins, offset: Tensor, gamma: float) -> Tensor:
    """How far each bin moves in x and y, in feature pixels, (n, 2, height, width)."""
    if not offset.numel():
        return bins.start.new_zeros(len(bins.start), 2, *bins.size)
    return offset * (gamma * bins.extent.flip(1))[:, :, None, None]


def _boxes(bins: RoIBins, move: Tensor) -> Tensor:
    """Every moved bin as an RoI of its own, (n * height * width, 5): RoIAlign of one bin is what is wanted there."""
    sides = []
    for axis in (0, 1):
        number = torch.arange(bins.size[axis], dtype=move.dtype, device=move.device)
        low = (bins.start[:, axis, None] + number * bins.step[:, axis, None]) + 0.5  # which RoIAlign takes off again
        low = (low[:, :, None] if axis == 0 else low[:, None, :]) + move[:, 1 - axis]
        step = bins.step[:, axis, None, None]
        high = low + step
        for _ in range(4):  # a size that rounding made larger than an integer would have RoIAlign take more samples
            high = torch.where(((high - 0.5) - (low - 0.5)).ceil() > step.ceil(), high.nextafter(low), high)
        sides.append((low, high))
    (top, bottom), (left, right) = sides
    image = bins.image[:, None, None].to(move.dtype).expand_as(left)
    return torch.stack([image, left, top, right, bottom], -1).flatten(0, 2)


def _by_place(values: list[Tensor], y: Tensor, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Derivative of the bilinear sample by x and y, (n, 2, height, width), from what its four pixels contribute.

    As mmcv's kernel: a coordinate beyond the border is not clamped here, though it is for the sample itself.
    """
    (top, bottom, _), (left, right, _) = neighbours(y, size[0]), neighbours(x, size[1])
    top_left, top_right, bottom_left, bottom_right = values
    by_x = (bottom_right - bottom_left) * (y - top) + (top_right - top_left) * (bottom - y)
    by_y = (bottom_right - top_right) * (x - left) + (bottom_left - top_left) * (right - x)
    outside = (y < -1) | (y > size[0]) | (x < -1) | (x > size[1])
    return torch.stack([by_x, by_y], 1).masked_fill(outside[:, None], 0)
