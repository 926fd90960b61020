"""Focal loss (Lin et al. 2017) as mmcv's operators of the same names; mmdet and mmseg use them on GPUs only."""
import torch
from torch import Tensor

from .common import check_devices, wide

TINY = torch.finfo(torch.float32).tiny  # FLT_MIN, below which the kernels do not take a logarithm


@torch.no_grad()
def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Loss of every class on its own.

    Args:
        input: (n, classes) logits.
        target: (n,) int64 class; any number that is no class means background.
        weight: (classes,) factor by the class of the target, background excepted; or empty.
        output: as ``input``, receives the loss, in its dtype; computed in float32.
    """
    check_devices('sigmoid_focal_loss_forward', input=input, target=target, output=output)
    p, positive, factor = _sigmoid_terms(input, target, weight, alpha)
    hit = (1 - p) ** gamma * p.clamp(min=TINY).log()
    miss = p ** gamma * (1 - p).clamp(min=TINY).log()
    output.copy_(-torch.where(positive, hit, miss) * factor)


@torch.no_grad()
def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float,
                                alpha: float) -> None:
    """``grad_input`` receives the loss's derivative by the logits; arguments as above."""
    check_devices('sigmoid_focal_loss_backward', input=input, target=target, grad_input=grad_input)
    p, positive, factor = _sigmoid_terms(input, target, weight, alpha)
    hit = (1 - p) ** gamma * (1 - p - gamma * p * p.clamp(min=TINY).log())
    miss = p ** gamma * (gamma * (1 - p) * (1 - p).clamp(min=TINY).log() - p)
    grad_input.copy_(-torch.where(positive, hit, miss) * factor)


@torch.no_grad()
def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Loss of each row.

    Args:
        input: (n, classes) probabilities, the softmax of the logits.
        target: (n,) int64 class; rows with a negative one do not count.
        weight: (classes,) factor by the class of the target; or empty.
        output: (n,), receives the loss, in its dtype; computed in float32.
    """
    check_devices('softmax_focal_loss_forward', input=input, target=target, output=output)
    p, factor = _softmax_terms(input, target, weight, alpha)
    output.copy_(-factor * (1 - p) ** gamma * p.clamp(min=TINY).log())


@torch.no_grad()
def softmax_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor,
                                gamma: float, alpha: float) -> None:
    """``grad_input`` receives the loss's derivative by the logits; ``buff``, (n,), is scratch; the rest as above."""
    check_devices('softmax_focal_loss_backward', input=input, target=target, grad_input=grad_input)
    p, factor = _softmax_terms(input, target, weight, alpha)
    slope = factor * (gamma * (1 - p) ** (gamma - 1) * p * p.clamp(min=TINY).log() - (1 - p) ** gamma)
    classes = torch.arange(input.shape[1], device=input.device)
    grad_input.copy_(slope[:, None] * ((target[:, None] == classes).to(slope.dtype) - input.to(slope.dtype)))


def _sigmoid_terms(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, whether the class is the target's, and the factor of each loss, (n, classes) each."""
    p = input.to(wide(input)).sigmoid()
    positive = target[:, None] == torch.arange(input.shape[1], device=input.device)
    factor = torch.full_like(p, 1 - alpha).masked_fill_(positive, alpha)
    return p, positive, factor * _class_weight(target, weight, input.shape[1], p)[:, None] if weight.numel() else factor


def _softmax_terms(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Probability of each row's target and the factor of its loss, 0 where the target is negative, (n,) each."""
    p = input.to(wide(input)).gather(1, target.clamp(min=0)[:, None])[:, 0]
    factor = alpha * (target >= 0).to(p.dtype)
    return p, factor * _class_weight(target, weight, input.shape[1], p) if weight.numel() else factor


def _class_weight(target: Tensor, weight: Tensor, classes: int, like: Tensor) -> Tensor:
    """(n,) weight of each target's class, 1 for what is no class (compiled operators read beyond the table there)."""
    known = (target >= 0) & (target < classes)
    return torch.where(known, weight.to(like.dtype)[target.clamp(0, classes - 1)], torch.ones_like(target).to(like))
