"""Cross-entropy of bilinearly upsampled logits, a few rows at a time; needs torch only.

150 classes at the size of a crop are the largest tensors of a training step, and torch has several of them: upsampled
logits, their logarithms of probabilities, and the gradients of both. Here the columns are upsampled as a whole and the
rows in blocks that stay in the processor's cache, each with its gradient at once.
"""
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .upsample_conv import apply_band, band, interpolation_matrix

POSITIONS = 4096  # of one block: 2.4 MB of logits for 150 classes


def upsampled_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = -100,
                            align_corners: bool = False) -> tuple[Tensor, Tensor]:
    """Cross-entropy of ``interpolate(logits, labels.shape[1:], mode='bilinear')``, and how many labels are right.

    Args:
        logits: float32 or float64 (N, classes, h, w).
        labels: int64 (N, H, W), from 0 to classes - 1, or ``ignore_index``.
        ignore_index: label of the pixels that count for neither.
        align_corners: as of ``torch.nn.functional.interpolate``.

    Returns:
        The sum over all pixels, differentiable once, and the number of pixels whose largest logit is their label's.
    """
    batch, classes, height, width = logits.shape
    with torch.autocast(logits.device.type, enabled=False):
        columns = interpolation_matrix(width, labels.shape[2], 1, align_corners, logits)
        rows = interpolation_matrix(height, labels.shape[1], 1, align_corners, logits)
        wide = apply_band(columns, logits.permute(0, 2, 3, 1).reshape(batch * height, width, classes), 1)
        return RowwiseCrossEntropy.apply(wide.view(batch, height, -1, classes), rows, labels, ignore_index)


class RowwiseCrossEntropy(torch.autograd.Function):
    """Upsampling of rows and cross-entropy; the gradient is computed together with the value."""

    @staticmethod
    def forward(ctx, wide: Tensor, matrix: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
        """``wide`` (N, h, W, classes) and ``matrix`` (H, h) to sum and number of right labels."""
        height, width = labels.shape[1:]
        needs_grad = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(wide) if needs_grad else None
        total, right = wide.new_zeros(()), labels.new_zeros(())
        block = max(1, POSITIONS // width)
        for index, image in enumerate(wide.flatten(2)):
            for start in range(0, height, block):
                stop = min(start + block, height)
                seen = slice(*band(start, stop, 1, len(image), height))
                weights, label = matrix[start:stop, seen], labels[index, start:stop].flatten()
                logits = (weights @ image[seen]).view(len(label), -1).requires_grad_(needs_grad)
                with torch.enable_grad():
                    loss = F.cross_entropy(logits, label, ignore_index=ignore_index, reduction='sum')
                total += loss.detach()
                right += ((logits.argmax(1) == label) & (label != ignore_index)).sum()
                if needs_grad:
                    grad, = torch.autograd.grad(loss, logits)
                    gradient[index].flatten(1)[seen].addmm_(weights.t(), grad.view(stop - start, -1))
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _) -> tuple[Tensor | None, ...]:
        gradient, = ctx.saved_tensors
        return gradient * grad, None, None, None


__all__ = ['upsampled_cross_entropy']
