"""Batch norm over some rows of a batch, for heads whose batches are padded."""
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def norms_over(module: nn.Module, rows: Tensor) -> Iterator[None]:
    """Let batch norms of a module compute their statistics from some rows, where they compute any.

    Args:
        rows: bool (n,), of the batch that the module is called with.
    """
    norms = [each for each in module.modules()
             if isinstance(each, _BatchNorm) and (each.training or each.running_mean is None)]
    for norm in norms:
        norm.forward = partial(masked_batch_norm, norm, rows)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


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
    from torch.distributed.nn.functional import all_reduce
    return all_reduce(sums, group=norm.process_group or torch.distributed.group.WORLD)
