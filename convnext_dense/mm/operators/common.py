"""What several operators share: the dtype they compute in, what they refuse, and bilinear sampling of RoI bins."""
from collections.abc import Iterator

import torch
from torch import Tensor


def wide(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or float64 where a tensor has it."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def check_devices(operator: str, **tensors: Tensor) -> None:
    """Raise ValueError unless all tensors are on one device."""
    if len({tensor.device for tensor in tensors.values()}) > 1:
        places = ', '.join(f'{name} on {tensor.device}' for name, tensor in tensors.items())
        raise ValueError(f'{operator}: all tensors must be on one device, found {places}; move them first')


def check_rois(operator: str, rois: Tensor, images: int, positive: bool, waits: bool = False,
               **tensors: Tensor) -> None:
    """Refuse RoIs that would read beyond the features, or have no end of samples.

    Args:
        rois: (n, 5) as image index, x1, y1, x2, y2.
        images: number of images in the features.
        positive: whether a negative size is an error, too.
        waits: whether the operator waits for a GPU anyway; if not, values are looked at on the CPU only.
    """
    check_devices(operator, rois=rois, **tensors)
    if rois.device.type != 'cpu' and not waits:
        return
    if not rois.isfinite().all():
        raise ValueError(f'{operator}: RoIs must be finite, found NaN or inf; the training may have diverged')
    if ((rois[:, 0] < 0) | (rois[:, 0] >= images)).any():
        raise ValueError(f'{operator}: column 0 of rois must index one of {images} images, found '
                         f'{rois[:, 0].min():g} to {rois[:, 0].max():g}')
    if positive and (rois[:, 3:] < rois[:, 1:3]).any():
        raise ValueError(f'{operator}: RoIs must have x2 >= x1 and y2 >= y1 with aligned=True, found a negative size')


def pixel_rows(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N * H * W, C), one row a pixel; a view where the memory is channels-last."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def each_step(counts: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Walk over the samples of all bins at once: (row, column, which RoIs have a sample there).

    As many steps as the largest bin has samples, so memory is that of one sample a bin.

    Args:
        counts: (n, 2) int64, samples per bin in y and x of every RoI.
    """
    on_cpu = counts.cpu()
    for row in range(int(on_cpu[:, 0].max()) if len(on_cpu) else 0):
        for column in range(int(on_cpu[:, 1].max())):
            which = ((on_cpu[:, 0] > row) & (on_cpu[:, 1] > column)).nonzero()[:, 0]
            if len(which):
                yield row, column, which.to(counts.device, non_blocking=True)


class RoIBins:
    """RoIs cut into bins, and where in each bin the samples of RoIAlign lie, in feature coordinates.

    Args:
        rois: (n, 5) as image index, x1, y1, x2, y2, in pixels of the image.
        size: bins per RoI in y and x.
        spatial_scale: feature pixels per image pixel.
        sampling_ratio: samples per bin and direction; 0: as many as the bin has feature pixels, rounded up.
        aligned: whether pixel centres lie at half-integers; if not, RoIs are at least one feature pixel wide.
    """

    def __init__(self, rois: Tensor, size: tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool):
        corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.)
        self.start, extent = corners[:, :2].flip(1), (corners[:, 2:] - corners[:, :2]).flip(1)  # (n, 2) as y, x
        self.extent = extent if aligned else extent.clamp(min=1)
        self.step = self.extent / extent.new_tensor(size)
        counts = torch.full_like(self.step, sampling_ratio) if sampling_ratio > 0 else self.step.ceil()
        self.image, self.counts, self.size = rois[:, 0].long(), counts.long(), size

    def place(self, axis: int, sample: int, which: Tensor) -> Tensor:
        """(len(which), size[axis]) coordinates of one sample of each bin along y (axis 0) or x (axis 1)."""
        start, step, count = (values[which, axis, None] for values in (self.start, self.step, self.counts))
        bins = torch.arange(self.size[axis], dtype=step.dtype, device=step.device)
        return start + bins * step + (sample + 0.5) * step / count


def surrounding(y: Tensor, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Flat indices and bilinear weights, (4, ...) each, of the pixels around (y, x); weight 0 beyond the border.

    In the order top left, top right, bottom left, bottom right. As mmcv's bilinear_interpolate: up to one pixel
    outside, the border's value counts.
    """
    outside = (y < -1) | (y > size[0]) | (x < -1) | (x > size[1])
    low, high, part = zip(*(neighbours(at, end) for at, end in zip((y, x), size, strict=True)), strict=True)
    ly, lx = part
    index = torch.stack([row * size[1] + column for row in (low[0], high[0]) for column in (low[1], high[1])])
    weight = torch.stack([row * column for row in (1 - ly, ly) for column in (1 - lx, lx)])
    return index, weight.masked_fill(outside, 0)


def neighbours(at: Tensor, end: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after coordinate ``at`` of ``end`` pixels, and how far past the first it lies."""
    at = at.clamp(min=0)
    low = at.long().clamp(max=end - 1)
    return low, (low + 1).clamp(max=end - 1), torch.where(low == end - 1, 0, at - low)
