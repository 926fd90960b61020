"""Segmentors of mmseg as one graph from pixels to class scores."""
from copy import deepcopy

import torch
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ..errors import UserError


class PlainSegmentor(nn.Module):
    """An encoder-decoder from pixels to class scores at the resolution of its decode head.

    Upsampling to the image, sliding windows and the choice of the best class are left to who runs the graph: at the
    size of an image the scores of 150 classes take gigabytes.

    Args:
        model: of mmseg, with any decode head that predicts as mmseg's BaseDecodeHead; backbone and neck are shared.

    Raises:
        UserError: the model predicts in another way.
    """

    output_names = ('class_scores',)

    def __init__(self, model: nn.Module):
        super().__init__()
        head = type(getattr(model, 'decode_head', None))
        if not isinstance(model, EncoderDecoder) or type(model).encode_decode is not EncoderDecoder.encode_decode:
            raise UserError(f'{type(model).__name__} cannot be exported: expected EncoderDecoder, as of UPerNet (or a '
                            'two-stage detector)')
        if (getattr(head, 'predict', None) is not BaseDecodeHead.predict
                or head.predict_by_feat is not BaseDecodeHead.predict_by_feat or model.out_channels == 1
                or model.align_corners):
            raise UserError(f'{head.__name__} with {model.out_channels} output channels and '
                            f'align_corners={model.align_corners} cannot be exported: expected a decode head with one '
                            'score per class and align_corners=False, as UPerHead')
        data = model.data_preprocessor
        self.backbone, self.neck = model.backbone, model.neck if model.with_neck else nn.Identity()
        self.head = deepcopy(model.decode_head)
        for parent in list(self.head.modules()):
            for name, module in parent.named_children():
                if isinstance(module, nn.AdaptiveAvgPool2d):
                    setattr(parent, name, MatrixPool(module.output_size))
        self.register_buffer('mean', data.mean.clone(), persistent=False)
        self.register_buffer('std', data.std.clone(), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Class scores (N, classes, h, w) of images, uint8 or float (N, 3, H, W) with values from 0 to 255."""
        x = ((images.float() - self.mean) / self.std).to(next(self.backbone.parameters()).dtype)
        return (self.head(self.neck(self.backbone(x))).to(torch.float32),)


class MatrixPool(nn.Module):
    """nn.AdaptiveAvgPool2d as two matrix products.

    torch's decomposition for export fixes the number of pixels in a bin at the traced size; this graph holds for all.

    Args:
        output_size: bins along both sides, or (rows, columns).
    """

    def __init__(self, output_size: int | tuple[int, int]):
        super().__init__()
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the means of the bins, (N, C, rows, columns)."""
        height, width = x.shape[2:]
        rows = bin_weights(height, self.output_size[0], x)
        return rows @ x @ bin_weights(width, self.output_size[1], x).t()


def bin_weights(length: int, bins: int, like: Tensor) -> Tensor:
    """(bins, length): each bin's mean as weights of positions, with the bounds that torch's adaptive pooling has."""
    whole = torch.full((1,), length, dtype=torch.long, device=like.device)
    index = torch.arange(bins, device=like.device)
    first, end = index * whole // bins, ((index + 1) * whole + bins - 1) // bins
    position = torch.arange(length, device=like.device)
    inside = (position >= first[:, None]) & (position < end[:, None])
    return inside.to(like.dtype) / (end - first).to(like.dtype)[:, None]


__all__ = ['PlainSegmentor']
