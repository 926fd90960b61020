"""Segmentation losses on float32 logits under mixed precision."""
import torch
from mmseg.models.decode_heads import FCNHead, Mask2FormerHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.losses.cross_entropy_loss import cross_entropy
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ..mm import transfer
from ..optim.float32_losses import Float32Losses
from .upsampled_loss import upsampled_cross_entropy


class Float32Loss:
    """Makes a decode head of mmseg upsample its logits and compute its losses in float32.

    mmseg 0, which the official recipes ran on, did so (``force_fp32`` on ``losses``); mmseg 1 upsamples to the crop in
    the half type of its last convolution. Comes before the head: ``class Head(Float32Loss, UPerHead)``. Parameters and
    results in float32 are those of the head. On a CPU, plain cross-entropy never has the upsampled logits in memory
    (`upsampled_cross_entropy`); on a GPU, the host does not wait for its accuracy.
    """

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """As the head's; ``seg_logits`` (N, classes, H, W) may be of any floating-point type."""
        seg_logits, loss = seg_logits.float(), self.loss_decode
        if self.sampler is not None or not is_plain(loss):
            return super().loss_by_feat(seg_logits, batch_data_samples)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        sums = cross_entropy_at_once if transfer.host_would_wait(seg_logits) else upsampled_cross_entropy
        total, right = sums(seg_logits, labels, self.ignore_index, self.align_corners)
        counted = (labels != self.ignore_index).sum()
        eps = torch.finfo(torch.float32).eps  # mmseg's, against a division by zero
        pixels = counted if loss.avg_non_ignore else labels.numel()
        return {loss.loss_name: loss.loss_weight * total / (pixels + eps),
                'acc_seg': 100 * (right + eps).view(1) / (counted + eps)}


def cross_entropy_at_once(logits: Tensor, labels: Tensor, ignore_index: int, align_corners: bool
                          ) -> tuple[Tensor, Tensor]:
    """What `upsampled_cross_entropy` returns, from upsampled logits in memory."""
    logits = F.interpolate(logits, labels.shape[1:], mode='bilinear', align_corners=align_corners)
    loss = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction='none').sum()
    return loss, ((logits.argmax(1) == labels) & (labels != ignore_index)).sum()


def is_plain(loss: nn.Module) -> bool:
    """Whether a loss is mmseg's mean of cross-entropies over softmax, all classes weighing the same."""
    return (type(loss) is CrossEntropyLoss and loss.cls_criterion is cross_entropy and loss.reduction == 'mean'
            and loss.class_weight is None)


@MODELS.register_module()
class Float32FCNHead(Float32Loss, FCNHead):
    """mmseg's FCNHead with its losses in float32."""


@MODELS.register_module()
class Float32Mask2FormerHead(Float32Losses, Mask2FormerHead):
    """mmseg's Mask2FormerHead with matching and losses in float32, as the official code has them."""
