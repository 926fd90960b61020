"""Small layers that all networks here share; they preserve channels-last memory."""
import torch
from torch import Tensor, nn

from .fused import choose, ops


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of an (N, C, H, W) tensor, independently at each position.

    In channels-last memory the permutations are views, so this is one pass over memory.

    Args:
        channels: C.
        eps: added to the variance; 1e-6 in every official ConvNeXt file.
    """

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GRN(nn.Module):
    """Global response normalisation (ConvNeXt V2 paper, section 4, algorithm 1) of an (N, H, W, C) tensor.

    ``gamma * (x * n) + beta + x`` with ``n`` the channel's L2 norm over all positions, divided by the mean norm of
    all channels. Written as one scale per sample and channel, so x is read twice and written once.
    The parameters have the official files' shape, (1, 1, 1, C), and start at zero: identity.
    """

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.beta is None:  # folded
            return self.plain(x)
        return choose('GRN', self.plain, self.fused, [x], [self.gamma, self.beta])

    def fused(self, x: Tensor) -> Tensor:
        return ops.grn(x.contiguous(), self.gamma.flatten(), self.beta.flatten(), self.eps)[0]

    def plain(self, x: Tensor) -> Tensor:
        # fp16 sums of squares overflow at a few hundred positions: take the norm in float32 at least
        norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        norm = norm / (norm.mean(dim=-1, keepdim=True) + self.eps)
        scale = (self.gamma * norm + 1).to(x.dtype)
        return x * scale if self.beta is None else torch.addcmul(self.beta.to(x.dtype), x, scale)


def drop_path_scale(x: Tensor, rate: float) -> Tensor:
    """One factor per sample, shape (N, 1, 1, 1): 0 with probability ``rate``, else 1 / (1 - rate)."""
    keep = 1 - rate
    return x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)


def init_like_official(module: nn.Module) -> None:
    """Truncated normal, deviation 0.02, for convolutions and linear layers; zero biases (official convnext.py)."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
