"""Batch norm over some rows of a batch, for heads whose batches are padded."""
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_reduce, wait_tensor
from torch.nn.modules.batchnorm import _BatchNorm


class Counted:
    """The rows of the batch, bool (n,), that count in the norms of the head that runs now; None: all."""

    rows: Tensor | None = None


@contextmanager
def norms_over(module: nn.Module, rows: Tensor) -> Iterator[None]:
    """Let batch norms of a module compute their statistics from some rows, where they compute any.

    Args:
        rows: bool (n,), of the batch that the module is called with.
    """
    if not torch.compiler.is_compiling():  # a graph is made of the forward functions that are there before
        let_norms_count(module)
    Counted.rows = rows
    try:
        yield
    finally:
        Counted.rows = None


def let_norms_count(module: nn.Module) -> None:
    """Give the batch norms of a module the forward function that `norms_over` needs; without it, it is their own."""
    for norm in module.modules():
        if isinstance(norm, _BatchNorm) and 'forward' not in vars(norm):
            norm.forward = partial(forward_over_rows, norm)


def forward_over_rows(norm: _BatchNorm, x: Tensor) -> Tensor:
    """The forward function of a batch norm, within `norms_over` and elsewhere."""
    if Counted.rows is None or not (norm.training or norm.running_mean is None):
        return type(norm).forward(norm, x)
    return masked_batch_norm(norm, Counted.rows, x)


def masked_batch_norm(norm: _BatchNorm, rows: Tensor, x: Tensor) -> Tensor:
    """What a batch norm in training gives for ``x`` (n, C, ...) where it sees ``rows`` bool (n,) alone.

    With SyncBatchNorm statistics are those of all ranks. Other rows are normalised with the same statistics.
    """
    values, ones = x.to(torch.promote_types(x.dtype, torch.float32)), [1] * (x.dim() - 2)
    weight = rows.to(values).view(-1, 1, *ones)
    dims = [0, *range(2, x.dim())]
    count = weight.sum() * (x[0, 0].numel() if x.dim() > 2 else 1)
    sums = over_ranks(norm, torch.cat([(values * weight).sum(dims), count[None]]))
    count = sums[-1].detach().clamp(min=1)
    mean = sums[:-1] / count
    centred = values - mean.view(-1, *ones)
    variance = over_ranks(norm, (centred.square() * weight).sum(dims)) / count
    if norm.track_running_stats and norm.training:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            momentum = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
            momentum = momentum * (sums[-1] > 0)  # nothing is learnt from nothing
            unbiased = variance * count / (count - 1).clamp(min=1)
            norm.running_mean.lerp_(mean.to(norm.running_mean), momentum.to(norm.running_mean))
            norm.running_var.lerp_(unbiased.to(norm.running_var), momentum.to(norm.running_var))
    y = centred * (variance + norm.eps).rsqrt().view(-1, *ones)
    if norm.affine:
        y = y * norm.weight.view(-1, *ones) + norm.bias.view(-1, *ones)
    return y.to(x.dtype)


def over_ranks(norm: _BatchNorm, sums: Tensor) -> Tensor:
    """Sums over all ranks where the norm is a SyncBatchNorm, with gradients."""
    if not isinstance(norm, nn.SyncBatchNorm) or get_world_size() == 1:
        return sums
    return SumOverRanks.apply(sums, norm.process_group or torch.distributed.group.WORLD)


class SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over ranks, whose gradient is the sum of the ranks' gradients; graphs can contain it."""

    @staticmethod
    def forward(ctx, values: Tensor, group) -> Tensor:
        ctx.group = group
        return wait_tensor(all_reduce(values, 'sum', group))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return wait_tensor(all_reduce(grad.contiguous(), 'sum', ctx.group)), None
