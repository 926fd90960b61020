"""The stock stack for comparisons: mmdet's and mmseg's own classes on the backbone as the official code writes it."""
from collections.abc import Sequence
from copy import deepcopy

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, Registry
from torch import Tensor, nn
from torch.nn import functional as F

from ..models import ConvNeXt
from ..models.convnext import layer_depth, parse_arch
from ..optim import LayerDecayOptimWrapperConstructor


@MODELS.register_module()
class OfficialConvNeXt(nn.Module):
    """ConvNeXt V1 and V2 computed operator by operator as the official dense backbone does, for comparison.

    Blocks permute to channels-last for LayerNorm and linear layers and back; the norms between stages take means over
    channels of (N, C, H, W) maps. Names of parameters and results are those of `ConvNeXt`, whose arguments it takes.
    """

    def __init__(self, arch: str | dict = 'tiny', in_channels: int = 3, layer_scale_init_value: float | None = None,
                 use_grn: bool = False, out_indices: Sequence[int] = (0, 1, 2, 3), **ignored):
        super().__init__()
        depths, dims = parse_arch(arch)
        scale = layer_scale_init_value if layer_scale_init_value is not None else 0 if use_grn else 1e-6
        self.out_indices = out_indices
        downs = [nn.Sequential(nn.Conv2d(in_channels, dims[0], 4, 4), ChannelsFirstNorm(dims[0]))]
        downs += [nn.Sequential(ChannelsFirstNorm(a), nn.Conv2d(a, b, 2, 2))
                  for a, b in zip(dims, dims[1:], strict=False)]
        self.downsample_layers = nn.ModuleList(downs)
        self.stages = nn.ModuleList(nn.Sequential(*(OfficialBlock(dim, scale, use_grn) for _ in range(depth)))
                                    for depth, dim in zip(depths, dims, strict=True))
        for i in out_indices:
            self.add_module(f'norm{i}', ChannelsFirstNorm(dims[i]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for i, (down, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = stage(down(x))
            if i in self.out_indices:
                maps.append(getattr(self, f'norm{i}')(x))
        return tuple(maps)


class OfficialBlock(nn.Module):
    """The block of the official convnext.py and convnextv2.py, without drop path."""

    def __init__(self, dim: int, layer_scale: float, use_grn: bool):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.grn = OfficialGRN(4 * dim) if use_grn else None
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), float(layer_scale))) if layer_scale > 0 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = F.gelu(self.pwconv1(y))
        y = self.pwconv2(y if self.grn is None else self.grn(y))
        if self.gamma is not None:
            y = self.gamma * y
        return x + y.permute(0, 3, 1, 2)


class OfficialGRN(nn.Module):
    """Global response normalisation of the official convnextv2.py."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, 1, 1, dim)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + x


class ChannelsFirstNorm(nn.Module):
    """LayerNorm over channels of (N, C, H, W), the official code's ``channels_first``."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def stock_config(cfg: Config) -> Config:
    """The same config on the stock stack: every class of this package becomes what it stands in for.

    Our subclasses of mmdet's and mmseg's classes become those, `ConvNeXt` becomes `OfficialConvNeXt`, layer decay is
    that of mmdet and mmseg. What has no stock counterpart stays.
    """
    cfg = deepcopy(cfg)
    with MODELS.switch_scope_and_registry(cfg.default_scope) as models:
        to_stock(cfg.model, models)
    with TRANSFORMS.switch_scope_and_registry(cfg.default_scope) as transforms:
        to_stock(cfg.test_dataloader.dataset.pipeline, transforms)
    if 'optim_wrapper' in cfg:
        cfg.optim_wrapper.optimizer.pop('fused', None)
        if cfg.optim_wrapper.get('constructor') == LayerDecayOptimWrapperConstructor.__name__:
            cfg.optim_wrapper.constructor = 'LearningRateDecayOptimizerConstructor'  # both packages have one
            depths, _ = parse_arch(cfg.model.backbone.get('arch', 'tiny'))
            cfg.optim_wrapper.paramwise_cfg.setdefault('num_layers', layer_depth('', '', depths)[1] - 2)
    return cfg


def to_stock(value, registry: Registry) -> None:
    """Rename the types in nested dicts and lists of a config, in place."""
    if isinstance(value, list | tuple):
        for item in value:
            to_stock(item, registry)
    elif isinstance(value, dict):
        if isinstance(value.get('type'), str):
            value['type'] = stock_type(registry.get(value['type']), value['type'])
        for item in value.values():
            to_stock(item, registry)


def stock_type(found: type | None, name: str) -> str:
    """Name of the class that a class of this package stands in for; of others their own name."""
    if found is None or not found.__module__.startswith('convnext_dense.'):
        return name
    if found is ConvNeXt:
        return 'OfficialConvNeXt'
    stock = next((base for base in found.__mro__ if base.__module__.startswith(('mmdet.', 'mmseg.', 'mmcv.'))), None)
    return name if stock is None else stock.__name__


__all__ = ['OfficialConvNeXt', 'stock_config']
