"""CARAFE (Wang et al. 2019): upsampling in which every output pixel has weights of its own for its neighbourhood."""
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from .common import check_devices, wide


@torch.no_grad()
def carafe_forward(features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor,
                   output: Tensor, kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Weighted sums of neighbourhoods; accumulates in float32 whatever half precision the tensors have.

    Args:
        features: (N, C, H, W).
        masks: (N, group_size * kernel_size ** 2, H * scale_factor, W * scale_factor), weights of the neighbours.
        rfeatures: as ``features``, receives them for the backward pass.
        routput, rmasks: scratch of the compiled operator; not needed here.
        output: (N, C, H * scale_factor, W * scale_factor), receives the result.
    """
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


@torch.no_grad()
def carafe_backward(top_grad: Tensor, rfeatures: Tensor, masks: Tensor, rtop_grad: Tensor, rbottom_grad_hs: Tensor,
                    rbottom_grad: Tensor, rmask_grad: Tensor, bottom_grad: Tensor, mask_grad: Tensor,
                    kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Adds the gradients to ``bottom_grad`` (of the features) and ``mask_grad``; arguments as above."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor)


@torch.no_grad()
def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int,
                         scale_factor: int) -> None:
    """As :func:`carafe_forward`, without its scratch."""
    check_devices('carafe_forward', features=features, masks=masks, output=output)
    padded = _padded(features, kernel_size, group_size)
    weights = _cells(masks.to(padded.dtype), group_size, scale_factor)
    total = padded.new_zeros(*weights.shape[:4], padded.shape[2], *features.shape[2:])
    for neighbour, shifted in _neighbours(padded, kernel_size):
        total.addcmul_(shifted, weights[:, :, :, :, neighbour, None])
    output.copy_(_maps(total))


@torch.no_grad()
def carafe_naive_backward(top_grad: Tensor, features: Tensor, masks: Tensor, bottom_grad: Tensor, mask_grad: Tensor,
                          kernel_size: int, group_size: int, scale_factor: int) -> None:
    """As :func:`carafe_backward`, without its scratch."""
    check_devices('carafe_backward', features=features, masks=masks, top_grad=top_grad)
    padded = _padded(features, kernel_size, group_size)
    by_padded = torch.zeros_like(padded)
    grad = _cells(top_grad.to(padded.dtype), group_size, scale_factor)
    weights = _cells(masks.to(padded.dtype), group_size, scale_factor)
    by_mask = torch.zeros_like(weights)
    steps = zip(_neighbours(padded, kernel_size), _neighbours(by_padded, kernel_size), strict=True)
    for (neighbour, shifted), (_, by_shifted) in steps:
        by_shifted += (grad * weights[:, :, :, :, neighbour, None]).sum((0, 1))
        by_mask[:, :, :, :, neighbour] = (grad * shifted).sum(4)
    border = kernel_size // 2
    inner = by_padded[..., border:border + features.shape[2], border:border + features.shape[3]]
    bottom_grad.add_(inner.reshape(features.shape))
    mask_grad.add_(_maps(by_mask))


def _cells(maps: Tensor, groups: int, scale: int) -> Tensor:
    """(N, groups * K, H * scale, W * scale) -> (scale, scale, N, groups, K, H, W), whose last two are contiguous."""
    cells = maps.unflatten(1, (groups, -1)).unflatten(4, (-1, scale)).unflatten(3, (-1, scale))
    return cells.permute(4, 6, 0, 1, 2, 3, 5).contiguous()


def _maps(cells: Tensor) -> Tensor:
    """The reverse of :func:`_cells`."""
    return cells.permute(2, 3, 4, 5, 0, 6, 1).flatten(5, 6).flatten(3, 4).flatten(1, 2)


def _padded(features: Tensor, kernel_size: int, groups: int) -> Tensor:
    """(N, groups, C / groups, H + kernel_size - 1, W + kernel_size - 1) with a border of zeros."""
    border = kernel_size // 2
    return pad(features.to(wide(features)), (border,) * 4).unflatten(1, (groups, -1))


def _neighbours(padded: Tensor, kernel_size: int) -> Iterator[tuple[int, Tensor]]:
    """Number of each neighbour and the map shifted so that it lies at the pixel it is a neighbour of."""
    height, width = padded.shape[3] - kernel_size + 1, padded.shape[4] - kernel_size + 1
    for neighbour in range(kernel_size ** 2):
        row, column = divmod(neighbour, kernel_size)
        yield neighbour, padded[..., row:row + height, column:column + width]
