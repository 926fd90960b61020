"""Segmentation losses on float32 logits under mixed precision."""
from mmseg.models.decode_heads import FCNHead, Mask2FormerHead
from mmseg.registry import MODELS
from torch import Tensor

from ..optim.float32_losses import Float32Losses


class Float32Loss:
    """Makes a decode head of mmseg upsample its logits and compute its losses in float32.

    mmseg 0, which the official recipes ran on, did so (``force_fp32`` on ``losses``); mmseg 1 upsamples to the crop in
    the half type of its last convolution. Comes before the head: ``class Head(Float32Loss, UPerHead)``. Parameters and
    results in float32 are those of the head.
    """

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """As the head's; ``seg_logits`` (N, classes, H, W) may be of any floating-point type."""
        return super().loss_by_feat(seg_logits.float(), batch_data_samples)


@MODELS.register_module()
class Float32FCNHead(Float32Loss, FCNHead):
    """mmseg's FCNHead with its losses in float32."""


@MODELS.register_module()
class Float32Mask2FormerHead(Float32Losses, Mask2FormerHead):
    """mmseg's Mask2FormerHead with matching and losses in float32, as the official code has them."""
