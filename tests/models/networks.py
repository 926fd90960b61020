"""The small network of the official vectors, and comparison by relative error."""
import numpy as np
import torch

from convnext_dense.models import ConvNeXt

SMALL = dict(depths=[2, 1, 3, 2], channels=[8, 16, 24, 40])


def small(seed: int = 0, **kwargs) -> ConvNeXt:
    """The small network with random values everywhere, layer scale large enough for every branch to matter."""
    torch.manual_seed(seed)
    if not kwargs.get('use_grn'):
        kwargs.setdefault('layer_scale_init_value', 0.5)
    return randomize(ConvNeXt(SMALL, **kwargs))


def randomize(net: torch.nn.Module) -> torch.nn.Module:
    """Random values for norms, biases, layer scale and GRN too, so that no term of a block is 0 or 1."""
    with torch.no_grad():
        for param in net.parameters():
            if param.dim() == 1 or param.dim() == 4 and param.shape[:3] == (1, 1, 1):
                param.add_(torch.randn_like(param), alpha=0.3)
            else:
                param.normal_(std=0.15 / param[0].numel() ** 0.25)
    return net


def relative_error(found: torch.Tensor, expected) -> float:
    """Norm of the difference over the norm of the expected value."""
    expected = torch.as_tensor(np.asarray(expected)) if not torch.is_tensor(expected) else expected
    return ((found.detach() - expected).norm() / expected.norm()).item()


def loss_of(maps) -> torch.Tensor:
    """The scalar that the official vectors' gradients belong to."""
    return sum((m ** 2).mean() for m in maps)


def gradients(net: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradient of `loss_of` for the input and every parameter (None where there is none)."""
    net.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    loss_of(net(x)).backward()
    return {'input': x.grad} | {name: param.grad for name, param in net.named_parameters()}
