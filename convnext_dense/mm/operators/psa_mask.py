"""The mask of PSANet (Zhao et al. 2018): from weights by relative place to weights by absolute place."""
from collections.abc import Iterator

import torch
from torch import Tensor

from .common import check_devices

COLLECT, DISTRIBUTE = 0, 1  # mmcv/ops/psa_mask.py: psa_type_enum


@torch.no_grad()
def psamask_forward(input: Tensor, output: Tensor, psa_type: int, num_: int, h_feature: int, w_feature: int,
                    h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int) -> None:
    """Spread each pixel's mask, centred on it, over the map; 0 where the mask does not reach.

    Args:
        input: (num_, h_mask * w_mask, h_feature, w_feature).
        output: (num_, h_feature * w_feature, h_feature, w_feature), receives with COLLECT the weight of place p for
            the pixel at (h, w), with DISTRIBUTE the weight of the pixel at (h, w) for p.
    """
    check_devices('psamask_forward', input=input, output=output)
    sides = h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask
    for rows, index, reached in _rows(output, psa_type, *sides):
        rows.copy_(input.flatten(2).gather(1, index.expand(num_, -1, -1)) * reached)


@torch.no_grad()
def psamask_backward(grad_output: Tensor, grad_input: Tensor, psa_type: int, num_: int, h_feature: int,
                     w_feature: int, h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int) -> None:
    """Adds the gradient to ``grad_input``; arguments as above."""
    check_devices('psamask_backward', grad_output=grad_output, grad_input=grad_input)
    total = torch.zeros_like(grad_input, memory_format=torch.contiguous_format).flatten(2)
    sides = h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask
    for rows, index, reached in _rows(grad_output.contiguous(), psa_type, *sides):
        total.scatter_add_(1, index.expand(num_, -1, -1), rows * reached)
    grad_input.add_(total.view(grad_input.shape))


def _rows(maps: Tensor, psa_type: int, height: int, width: int, h_mask: int, w_mask: int, half_h: int,
          half_w: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One row of target places at a time, so that the indices stay small beside the map.

    Yields:
        the part of ``maps`` for the targets, (N, width, height * width), a view; which channel of the mask it comes
        from, (1, width, height * width); and whether the mask reaches there, likewise.
    """
    table = maps.view(len(maps), height * width, height * width)
    table = table if psa_type == COLLECT else table.transpose(1, 2)
    y = torch.arange(height, device=maps.device)
    x = torch.arange(width, device=maps.device)
    column = (x[:, None] - x + half_w)[:, None, :]  # of the mask, by target and by pixel: (width, 1, width)
    for target in range(height):
        row = (target - y + half_h)[None, :, None]
        reached = (row >= 0) & (row < h_mask) & (column >= 0) & (column < w_mask)
        index = row.clamp(0, h_mask - 1) * w_mask + column.clamp(0, w_mask - 1)
        yield (table[:, target * width:(target + 1) * width], index.flatten(1)[None], reached.flatten(1)[None])
