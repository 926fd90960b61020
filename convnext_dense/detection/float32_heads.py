"""Heads whose outputs or losses are float32 under mixed precision, so that boxes and losses are not rounded.

In two-stage detectors, casting a head's outputs once is what ``force_fp32`` on each of mmdet 2's functions that read
them comes to: ``loss``, ``get_bboxes`` and Cascade R-CNN's ``refine_bboxes``. Parameters and float32 results are those
of mmdet's heads.
"""
import numpy as np
import torch
from mmcv.cnn.bricks import wrappers
from mmdet.models.dense_heads import (
    DINOHead,
    FCOSHead,
    Mask2FormerHead,
    RetinaHead,
    RPNHead,
    RTMDetInsSepBNHead,
    RTMDetSepBNHead,
)
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead, Shared2FCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import scale_boxes
from torch import Tensor, nn

from ..models.kernels import linear, use_fast_linear
from ..optim.float32_losses import Float32Losses
from .mask_paste import paste_masks


@MODELS.register_module()
class Float32RPNHead(RPNHead):
    """mmdet's RPNHead with float32 scores and box deltas; mmdet 3 takes the type of its anchors from them, too."""

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Objectness (N, anchors, H, W) and box deltas (N, 4 * anchors, H, W) of one level, in float32."""
        scores, deltas = super().forward_single(x)
        return scores.float(), deltas.float()


class Float32Outputs:
    """Makes a box head return float32 scores and box deltas; comes before the head's class."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        use_fast_linear(self)

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Scores (n, classes + 1) and box deltas (n, 4 or 4 * classes) of n RoIs in float32; None where left out."""
        return tuple(None if output is None else output.float() for output in super().forward(x))


@MODELS.register_module()
class Float32Shared2FCBBoxHead(Float32Outputs, Shared2FCBBoxHead):
    """mmdet's Shared2FCBBoxHead with float32 outputs."""


@MODELS.register_module()
class Float32ConvFCBBoxHead(Float32Outputs, ConvFCBBoxHead):
    """mmdet's ConvFCBBoxHead with float32 outputs."""


@MODELS.register_module()
class Float32FCNMaskHead(FCNMaskHead):
    """mmdet's FCNMaskHead with float32 mask logits.

    Where the deconvolution's stride is its kernel size, as by default, each input position gives k x k outputs of its
    own: one matrix product. The 1x1 convolution to logits then takes its rows as they are, and only the logits, fewer
    channels, are put in the order of pixels.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Mask logits (n, classes, 28, 28) of n RoIs in float32."""
        if not is_matrix_product(self.upsample) or type(self.conv_logits) not in (nn.Conv2d, wrappers.Conv2d):
            return super().forward(x).float()
        x = x.contiguous(memory_format=torch.channels_last)
        for conv in self.convs:
            x = conv(x)
        kernel, (rois, channels, height, width) = self.upsample.kernel_size[0], x.shape
        weight = self.upsample.weight.permute(2, 3, 1, 0).reshape(-1, channels)
        x = linear(x.permute(0, 2, 3, 1).reshape(-1, channels), weight, self.upsample.bias.repeat(kernel ** 2))
        x = self.relu(x).view(-1, self.upsample.out_channels)
        x = linear(x, self.conv_logits.weight.flatten(1), self.conv_logits.bias).float()
        x = x.view(rois, height, width, kernel, kernel, x.shape[1]).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(rois, x.shape[1], kernel * height, kernel * width)

    def _predict_by_feat_single(self, mask_preds: Tensor, bboxes: Tensor, labels: Tensor, img_meta: dict,
                                rcnn_test_cfg: dict, rescale: bool = False, activate_map: bool = False) -> Tensor:
        """Masks bool (n, height, width) of an image; mmdet's own code except on a CPU (`paste_masks`)."""
        threshold = rcnn_test_cfg.mask_thr_binary
        if bboxes.device.type != 'cpu' or threshold < 0 or activate_map:
            return super()._predict_by_feat_single(mask_preds, bboxes, labels, img_meta, rcnn_test_cfg, rescale,
                                                   activate_map)
        if not self.class_agnostic:
            mask_preds = mask_preds[range(len(labels)), labels][:, None]
        scale, size = img_meta['scale_factor'], img_meta['ori_shape'][:2]
        if rescale:
            bboxes /= bboxes.new_tensor(scale).repeat((1, 2))  # in place, as mmdet: they are the image's boxes
        else:
            size = tuple(int(np.round(side * float(np.float32(by))))
                         for side, by in zip(size, reversed(scale), strict=True))
        return paste_masks(mask_preds.sigmoid(), bboxes, size, threshold)


@MODELS.register_module()
class Float32RetinaHead(Float32Losses, RetinaHead):
    """mmdet's RetinaHead with its losses in float32."""


@MODELS.register_module()
class Float32FCOSHead(Float32Losses, FCOSHead):
    """mmdet's FCOSHead with its losses in float32."""


@MODELS.register_module()
class Float32RTMDetSepBNHead(Float32Losses, RTMDetSepBNHead):
    """mmdet's RTMDetSepBNHead with its losses in float32."""


@MODELS.register_module()
class Float32RTMDetInsSepBNHead(Float32Losses, RTMDetInsSepBNHead):
    """mmdet's RTMDetInsSepBNHead with its losses, the masks' dynamic convolutions included, in float32.

    Its masks have the size of the original image. mmdet scales their height by the width's factor, which differs by
    rounding, so that a small image's masks can lack rows or columns.
    """

    def _bbox_mask_post_process(self, results, mask_feat, cfg, rescale: bool = False, with_nms: bool = True,
                                img_meta: dict | None = None):
        if rescale:
            width, height = img_meta['scale_factor']
            img_meta = {**img_meta, 'scale_factor': (height, width)}  # what mmdet takes for masks, and for boxes
            results.bboxes = scale_boxes(results.bboxes, (height / width, width / height))
        return super()._bbox_mask_post_process(results, mask_feat, cfg, rescale, with_nms, img_meta)


@MODELS.register_module()
class Float32DINOHead(Float32Losses, DINOHead):
    """mmdet's DINOHead with its losses in float32."""


@MODELS.register_module()
class Float32Mask2FormerHead(Float32Losses, Mask2FormerHead):
    """mmdet's Mask2FormerHead with matching and losses in float32, as the official code has them."""


def is_matrix_product(layer: nn.Module | None) -> bool:
    """Whether a layer is a deconvolution whose outputs see one input position each."""
    return (type(layer) in (nn.ConvTranspose2d, wrappers.ConvTranspose2d)
            and len({*layer.kernel_size, *layer.stride}) == 1 and not any((*layer.padding, *layer.output_padding))
            and layer.groups == 1 and layer.bias is not None)
