"""The steps of batch normalisation between which mmcv's MMSyncBN sums over processes; all statistics are float32."""
import torch
from torch import Tensor


@torch.no_grad()
def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """``mean``, (C,), receives the mean of ``input``, (N, C, L)."""
    mean.copy_(input.float().mean((0, 2)))


@torch.no_grad()
def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """``var``, (C,), receives the mean square of ``input``, (N, C, L), from ``mean``."""
    var.copy_((input.float() - mean[:, None]).square_().mean((0, 2)))


@torch.no_grad()
def sync_bn_forward_output(input: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor,
                           running_mean: Tensor, running_var: Tensor, norm: Tensor, std: Tensor, output: Tensor,
                           eps: float, momentum: float | Tensor, group_size: int) -> None:
    """Normalise, scale and shift; move the running statistics by ``momentum``.

    Args:
        input, output: (N, C, L); ``norm`` likewise, receives the normalised input for the backward pass.
        mean, var: (C,) over all processes; ``std`` likewise, receives sqrt(var + eps).
        weight, bias: (C,).
        running_mean, running_var: (C,), the variance unbiased.
        group_size: processes whose samples count.
    """
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * group_size
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(var * (count / (count - 1)) if count > 1 else var, momentum)


@torch.no_grad()
def sync_bn_backward_param(grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """``grad_weight`` and ``grad_bias``, (C,), receive what this process adds to the gradients."""
    grad_weight.copy_((grad_output.float() * norm).sum((0, 2)))
    grad_bias.copy_(grad_output.float().sum((0, 2)))


@torch.no_grad()
def sync_bn_backward_data(grad_output: Tensor, weight: Tensor, grad_weight: Tensor, grad_bias: Tensor, norm: Tensor,
                          std: Tensor, grad_input: Tensor) -> None:
    """``grad_input``, (N, C, L), receives the gradient; ``grad_weight`` and ``grad_bias`` averaged over processes."""
    count = grad_output.shape[0] * grad_output.shape[2]
    shared = (norm * grad_weight[:, None] + grad_bias[:, None]) / count
    grad_input.copy_((grad_output.float() - shared) * (weight / std)[:, None])
