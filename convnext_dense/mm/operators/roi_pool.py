"""RoIPool (Girshick 2015) as mmcv has it: bins are not rounded, unlike torchvision's, and reach one pixel further."""
import torch
from torch import Tensor

from .common import check_rois, each_step, pixel_rows, wide


@torch.no_grad()
def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int,
                     pooled_width: int, spatial_scale: float) -> None:
    """The largest feature of each bin; 0 in a bin without pixels.

    Args:
        input: (N, C, H, W) features.
        rois: (n, 5) as image index, x1, y1, x2, y2, in pixels of the image, x2 and y2 included.
        output: (n, C, pooled_height, pooled_width), receives the result.
        argmax: as ``output``, int32, receives the maximum's place as y * W + x, -1 where there is none.
        spatial_scale: feature pixels per image pixel.
    Raises:
        ValueError: devices differ or an RoI is not finite or names no image.
    """
    check_rois('roi_pool_forward', rois, len(input), False, waits=True, input=input, output=output)
    height, width = input.shape[2:]
    rois = rois.to(wide(input))
    low_y, high_y = _edges(rois[:, 2], rois[:, 4], pooled_height, spatial_scale, height)
    low_x, high_x = _edges(rois[:, 1], rois[:, 3], pooled_width, spatial_scale, width)
    counts = torch.stack([(high - low).amax(1).clamp(min=0) for high, low in ((high_y, low_y), (high_x, low_x))], 1)
    image = rois[:, 0].long() * height * width
    pixels = pixel_rows(input)
    best = pixels.new_full((len(rois), pooled_height, pooled_width, input.shape[1]), -torch.inf)
    place = torch.full_like(best, -1, dtype=torch.int32)
    for row, column, which in each_step(counts):
        y, x = low_y[which] + row, low_x[which] + column
        inside = ((y < high_y[which])[:, :, None] & (x < high_x[which])[:, None, :])[..., None]
        index = y.clamp(max=height - 1)[:, :, None] * width + x.clamp(max=width - 1)[:, None, :]
        value = pixels[index + image[which, None, None]]
        larger = inside & (value > best[which])
        best[which] = torch.where(larger, value, best[which])
        place[which] = torch.where(larger, index[..., None].int(), place[which])
    output.copy_(best.masked_fill(place < 0, 0).permute(0, 3, 1, 2))
    argmax.copy_(place.permute(0, 3, 1, 2))


@torch.no_grad()
def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int,
                      pooled_width: int, spatial_scale: float) -> None:
    """Adds each bin's gradient to ``grad_input``, (N, C, H, W), where the bin's maximum was; arguments as above."""
    check_rois('roi_pool_backward', rois, len(grad_input), False, grad_output=grad_output, grad_input=grad_input)
    images, channels, height, width = grad_input.shape
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    index = argmax.clamp(min=0) + (plane * height * width)[..., None, None]
    value = grad_output.to(wide(grad_output)) * (argmax >= 0)
    total = value.new_zeros(images * channels * height * width)
    grad_input.add_(total.index_add_(0, index.flatten(), value.flatten()).view(grad_input.shape))


def _edges(low: Tensor, high: Tensor, bins: int, scale: float, end: int) -> tuple[Tensor, Tensor]:
    """First pixel and the one after the last, (n, bins) int64 each, of the bins along one axis of ``end`` pixels."""
    start = low * scale
    extent = (high + 1) * scale - start
    step = (extent / bins)[:, None]
    edge = torch.arange(bins + 1, dtype=step.dtype, device=step.device)
    first = (edge[:-1] * step + start[:, None]).floor().clamp(0, end).long()
    last = (edge[1:] * step + start[:, None]).ceil().clamp(0, end).long()
    return first, torch.where(extent[:, None] > 0, last, first)  # an RoI without extent has no pixels
