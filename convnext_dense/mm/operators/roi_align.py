"""RoIAlign (He et al. 2017, section 3), as mmcv's operators of the same names."""
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .common import RoIBins, check_rois, each_step, neighbours, pixel_rows, surrounding, wide

MAX, AVG = 0, 1  # mmcv/ops/roi_align.py: pool_mode
# A bin's maximum starts here in mmcv's CPU kernel (csrc/pytorch/cpu/roi_align.cpp): an empty bin has this value.
MAX_STARTS_AT = -10000.


@torch.no_grad()
def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """RoIAlign; computes in float32 whatever half precision the tensors have.

    Args:
        input: (N, C, H, W) features.
        rois: (n, 5) as image index, x1, y1, x2, y2, in pixels of the image.
        output: (n, C, aligned_height, aligned_width), receives the result.
        argmax_y, argmax_x: as ``output``, receive where each maximum lies (feature coordinates); unused with AVG.
        spatial_scale: feature pixels per image pixel.
        sampling_ratio: samples per bin and direction; 0: as many as the bin has feature pixels, rounded up.
        pool_mode: MAX or AVG over a bin's samples.
        aligned: whether pixel centres lie at half-integers; if not, RoIs are at least one feature pixel wide.
    Raises:
        ValueError: devices differ or, with MAX or on the CPU, an RoI is not finite, has a negative size or names no
            image.
    """
    check_rois('roi_align_forward', rois, len(input), aligned, waits=pool_mode == MAX, input=input,
               output=output)
    dtype = wide(input)
    size = (aligned_height, aligned_width)
    if pool_mode == MAX:
        bins = RoIBins(rois.to(dtype), size, spatial_scale, sampling_ratio, aligned)
        for target, result in zip((output, argmax_y, argmax_x), _maxima(input.to(dtype), bins), strict=True):
            target.copy_(result.permute(0, 3, 1, 2))
        return
    if sampling_ratio == 0 and input.device.type == 'cpu' and input.stride(1) == 1 and len(rois):
        bins = RoIBins(rois.to(dtype), size, spatial_scale, sampling_ratio, aligned)
        output.copy_(_averages(input.to(dtype), bins).permute(0, 3, 1, 2))
        return
    import torchvision.ops  # noqa: F401  (registers the operator)
    output.copy_(torch.ops.torchvision.roi_align(input.to(dtype), rois.to(dtype), spatial_scale, *size,
                                                 sampling_ratio, aligned))


@torch.no_grad()
def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Adds the gradient with respect to RoIAlign's features to ``grad_input``; other arguments and errors as above."""
    check_rois('roi_align_backward', rois, len(grad_input), aligned, grad_output=grad_output, grad_input=grad_input)
    dtype = wide(grad_output)
    if pool_mode == MAX:
        grad_input.add_(_maxima_backward(grad_output.to(dtype), rois[:, 0].long(), argmax_y.to(dtype),
                                         argmax_x.to(dtype), grad_input.shape))
        return
    import torchvision.ops  # noqa: F401  (registers the operator)
    grad_input.add_(torch.ops.torchvision._roi_align_backward(
        grad_output.to(dtype), rois.to(dtype), spatial_scale, aligned_height, aligned_width, *grad_input.shape,
        sampling_ratio, aligned))


TAPS = 2 ** 20  # indices and weights in memory at one time


def _averages(features: Tensor, bins: RoIBins) -> Tensor:
    """The mean of each bin's samples, (n, height, width, C), of channels-last features and adaptive sampling.

    A mean of bilinear samples is a weighted sum of pixels, whose weights are products of one of the row and one of the
    column. Samples lie at most one pixel apart, so a bin of r x c samples sees (r + 1)(c + 1) pixels, each read once
    with all its channels; torchvision reads 4rc, channel by channel.
    """
    pixels, (height, width) = pixel_rows(features), features.shape[2:]
    (rows, row_weights), (columns, column_weights) = (_axis_weights(bins, axis, length)
                                                      for axis, length in enumerate((height, width)))
    rows = (rows + bins.image[:, None, None] * height) * width
    result = features.new_empty((len(bins.image), *bins.size, features.shape[1]))
    for count in bins.counts.unique(dim=0):
        high, wide = (count + 1).tolist()
        group = (bins.counts == count).all(1).nonzero()[:, 0]
        for which in group.split(max(1, TAPS // (bins.size[0] * bins.size[1] * high * wide))):
            index = rows[which, :, None, :high, None] + columns[which, None, :, None, :wide]
            weight = row_weights[which, :, None, :high, None] * column_weights[which, None, :, None, :wide]
            sums = embedding_bag(index.flatten(0, 2).flatten(1), pixels, mode='sum',
                                 per_sample_weights=weight.flatten(0, 2).flatten(1))
            result[which] = sums.view(len(which), *bins.size, -1)
    return result


def _axis_weights(bins: RoIBins, axis: int, length: int) -> tuple[Tensor, Tensor]:
    """Pixels along an axis that the samples of each bin see, and their weights, (n, bins, largest count + 1) each."""
    count = bins.counts[:, axis, None, None]
    sample = torch.arange(max(1, int(count.max())))
    is_sample = sample < count
    at = torch.stack([bins.place(axis, int(i), slice(None)) for i in sample], -1)
    at = torch.where(is_sample, at, 0)
    low, _, part = neighbours(at, length)
    first = low[..., :1]
    beyond = low - first >= count  # rounding alone puts a sample there
    low, part = torch.where(beyond, first + count - 1, low), torch.where(beyond, 1, part)
    share = (is_sample & (at >= -1) & (at <= length)).to(at) / count.clamp(min=1)
    weights = at.new_zeros((*at.shape[:-1], len(sample) + 1))
    offset = torch.where(is_sample, low - first, 0)
    weights.scatter_add_(2, offset, (1 - part) * share).scatter_add_(2, offset + 1, part * share)
    return (first + torch.arange(len(sample) + 1)).clamp(max=length - 1), weights


def _maxima(features: Tensor, bins: RoIBins) -> tuple[Tensor, Tensor, Tensor]:
    """The largest sample of each bin and where it lies in y and x, (n, height, width, C) each; -1 in an empty bin."""
    pixels, plane = pixel_rows(features), features.shape[2] * features.shape[3]
    best = features.new_full((len(bins.image), *bins.size, features.shape[1]), MAX_STARTS_AT)
    best_y, best_x = torch.full_like(best, -1), torch.full_like(best, -1)
    for row, column, which in each_step(bins.counts):
        y = bins.place(0, row, which)[:, :, None].expand(-1, -1, bins.size[1])
        x = bins.place(1, column, which)[:, None, :].expand(-1, bins.size[0], -1)
        index, weight = surrounding(y, x, features.shape[2:])
        index = index + (bins.image[which] * plane)[:, None, None]
        value = sum(weight[corner, ..., None] * pixels[index[corner]] for corner in range(4))
        larger = value > best[which]
        for kept, new in ((best, value), (best_y, y[..., None]), (best_x, x[..., None])):
            kept[which] = torch.where(larger, new, kept[which])
    return best, best_y, best_x


def _maxima_backward(grad: Tensor, image: Tensor, y: Tensor, x: Tensor, shape: torch.Size) -> Tensor:
    """Each bin's gradient goes to the four pixels around its maximum."""
    index, weight = surrounding(y, x, shape[2:])
    weight = weight * (y != -1)
    plane = image[:, None] * shape[1] + torch.arange(shape[1], device=image.device)
    plane = (plane * shape[2] * shape[3])[..., None, None]
    total = grad.new_zeros(shape)
    for corner in range(4):
        total.view(-1).index_add_(0, (index[corner] + plane).flatten(), (grad * weight[corner]).flatten())
    return total
