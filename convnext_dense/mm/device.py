"""Where a process computes: on a GPU or the CPU, and as which of several ranks."""
import os

from ..errors import UserError


def use_device(device: str) -> None:
    """Choose where everything runs: 'auto' (a GPU where there is one), 'cuda' or 'cpu'.

    Raises:
        UserError: 'cuda' was asked for and torch sees no GPU.
    """
    import torch  # late: `launched_rank` does without

    from . import patches
    if device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda was asked for, but torch sees no GPU: '
                        'use --device cpu, or check the driver with nvidia-smi and that torch is a CUDA build')
    if device == 'cpu' or not torch.cuda.is_available():
        # Adam's moments of small gradients are denormal numbers, on which CPUs crawl: 18 s instead of 3 s per
        # iteration were seen. Set before torch starts its threads, which inherit it.
        torch.set_flush_denormal(True)
    if device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
        patches.compute_on_cpu()


def allow_graphs(count: int) -> None:
    """Let torch.compile make at least so many graphs of one function; beyond its own limit, 8, it compiles no more."""
    import torch
    config = torch._dynamo.config
    config.cache_size_limit = max(count, config.cache_size_limit)


def allow_tf32(allowed: bool) -> None:
    """Let GPUs from Ampere on round the inputs of float32 matrix products and convolutions to TF32, or forbid both.

    By itself torch allows it for convolutions alone, since 1.12; before, for both.
    """
    import torch
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
