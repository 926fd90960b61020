"""Convolution at chosen places only, as guided anchoring uses it in prediction (Wang et al. 2019)."""
import torch
from torch import Tensor
from torch.nn.functional import pad

from .common import check_devices


@torch.no_grad()
def masked_im2col_forward(im: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, col: Tensor, kernel_h: int,
                          kernel_w: int, pad_h: int, pad_w: int) -> None:
    """Unfold the neighbourhoods of the chosen places.

    Args:
        im: (1, C, H, W).
        mask_h_idx, mask_w_idx: (places,) int64 row and column of each.
        col: (C * kernel_h * kernel_w, places), receives the result.
    """
    check_devices('masked_im2col_forward', im=im, mask_h_idx=mask_h_idx, mask_w_idx=mask_w_idx, col=col)
    padded = pad(im[0], (pad_w, pad_w + kernel_w, pad_h, pad_h + kernel_h))  # a place may lie in the last row
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows[:, None], columns].reshape(col.shape))


@torch.no_grad()
def masked_col2im_forward(col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int,
                          channels: int) -> None:
    """Put the columns of ``col``, (channels, places), where they belong in ``im``, (1, channels, height, width)."""
    check_devices('masked_col2im_forward', col=col, mask_h_idx=mask_h_idx, mask_w_idx=mask_w_idx, im=im)
    im[0][:, mask_h_idx, mask_w_idx] = col.to(im.dtype)
