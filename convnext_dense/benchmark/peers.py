"""Other implementations of ConvNeXt-T to V1's sizes as dense backbones, with the weights of ours."""
import importlib
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints.formats import OFFICIAL, TIMM_FEATURES, TORCHVISION, TRANSFORMERS, to_format
from ..models import ARCHITECTURES, ConvNeXt

SIZES = ('tiny', 'small', 'base', 'large')  # what all peers have


class NaiveNorm(nn.LayerNorm):
    """LayerNorm over channels of (N, C, H, W), by the formula."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class NaiveBlock(nn.Module):
    """The block of the paper's figure 4: 7x7 depthwise, LN, 1x1, GELU, 1x1, in NCHW."""

    def __init__(self, dim: int):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = NaiveNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Conv2d(dim, 4 * dim, 1)
        self.pwconv2 = nn.Conv2d(4 * dim, dim, 1)
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.pwconv2(F.gelu(self.pwconv1(self.norm(self.dwconv(x)))))
        return x + self.gamma[:, None, None] * y


class Naive(nn.Module):
    """Unoptimised baseline, straight from the paper."""

    def __init__(self, arch: str):
        super().__init__()
        depths, dims = ARCHITECTURES[arch]
        downs = [nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), NaiveNorm(dims[0], eps=1e-6))]
        downs += [nn.Sequential(NaiveNorm(a, eps=1e-6), nn.Conv2d(a, b, 2, 2)) for a, b in zip(dims, dims[1:],
                                                                                             strict=False)]
        self.downsample_layers = nn.ModuleList(downs)
        self.stages = nn.ModuleList(nn.Sequential(*(NaiveBlock(dim) for _ in range(depth)))
                                    for depth, dim in zip(depths, dims, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            maps.append(x := stage(down(x)))
        return maps


class PeerBackbone(nn.Module):
    """A peer's network with the call that gives its four feature maps."""

    def __init__(self, net: nn.Module, call: Callable):
        super().__init__()
        self.net, self.call = net, call

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.call(self.net, x)


def build_timm(arch: str) -> nn.Module:
    return PeerBackbone(importlib.import_module('timm').create_model(f'convnext_{arch}', features_only=True),
                        lambda net, x: net(x))


def build_transformers(arch: str) -> nn.Module:
    transformers = importlib.import_module('transformers')
    depths, dims = ARCHITECTURES[arch]
    stages = ['stage1', 'stage2', 'stage3', 'stage4']
    net = transformers.ConvNextBackbone(transformers.ConvNextConfig(depths=list(depths), hidden_sizes=list(dims),
                                                                    out_features=stages))
    for stage in stages:  # its output norms: the other peers have none
        net.hidden_states_norms[stage] = nn.Identity()
    return PeerBackbone(net, lambda net, x: list(net(x).feature_maps))


def build_torchvision(arch: str) -> nn.Module:
    def call(net: nn.Module, x: Tensor) -> list[Tensor]:
        maps = []
        for i, layer in enumerate(net.features):
            x = layer(x)
            if i % 2:
                maps.append(x)
        return maps
    net = getattr(importlib.import_module('torchvision').models, f'convnext_{arch}')()
    net.classifier = nn.Identity()
    return PeerBackbone(net, call)


def build_naive(arch: str) -> nn.Module:
    return PeerBackbone(Naive(arch), lambda net, x: net(x))


# name: (package, builder, names and layouts of its parameters)
PEERS = {
    'timm': ('timm', build_timm, TIMM_FEATURES),
    'transformers': ('transformers', build_transformers, TRANSFORMERS),
    'torchvision': ('torchvision', build_torchvision, TORCHVISION),
    'naive': ('torch', build_naive, OFFICIAL),
}


def build_peers(ours: ConvNeXt, arch: str) -> dict[str, nn.Module]:
    """Every peer that can be imported, in eval mode, with the weights of ``ours`` (built without output norms)."""
    peers = {}
    for name, (package, build, rows) in PEERS.items():
        if find_spec(package) is None:
            continue
        peer = build(arch)
        shapes = {key: value.shape for key, value in peer.net.state_dict().items()}
        state = dict(to_format(rows, key, tensor) for key, tensor in ours.state_dict().items())
        # the naive network has convolutions of 1x1 pixels where ours has linear layers
        peer.net.load_state_dict({key: tensor.reshape(shapes.get(key, tensor.shape)) for key, tensor in state.items()})
        peers[name] = peer.eval()
    return peers
