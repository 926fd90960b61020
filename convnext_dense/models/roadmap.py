"""From ResNet to ConvNeXt one step at a time, every step a dense backbone.

The steps are those of "A ConvNet for the 2020s", section 2 and figure 2; each includes all before it. There are two
regimes: from ResNet-50 (v1.5: the stride sits in the 3x3) to ConvNeXt-T, and from ResNet-200 to ConvNeXt-B, both
without layer scale.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from ..mm.fallbacks import MODELS, BaseModule
from .convnext import EXPANSION, Block, check_input, layer_depth, parse_out_indices
from .layers import LayerNorm2d, drop_path_scale, init_like_official


@dataclass(frozen=True)
class Step:
    """Design of the network at one step; the defaults are ResNet-50."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    patchify: bool = False  # stem: 4x4 convolution of stride 4, not 7x7 of stride 2 and max pooling
    depthwise: bool = False  # the spatial convolution
    width: int = 64  # of the bottleneck in the first stage
    inverted: bool = False  # bottleneck: wide in the middle, not at the ends
    spatial_first: bool = False  # depthwise convolution before the two pointwise ones
    kernel_size: int = 3
    act: Callable[[], nn.Module] = nn.ReLU
    one_act: bool = False  # per block, between the pointwise convolutions
    one_norm: bool = False  # per block, after the depthwise convolution
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    separate_downsampling: bool = False  # LayerNorm and 2x2 convolution between stages


# step: (what changes, ImageNet-1K top-1 in percent of the two regimes as the paper prints it: figure 2 and appendix C,
# tables 10 and 11)
CHANGES = {
    'resnet': ({}, 78.82, 81.14),
    'stage_ratio': (dict(depths=(3, 3, 9, 3)), 79.36, 81.33),
    'patchify': (dict(patchify=True), 79.51, 81.59),
    'depthwise': (dict(depthwise=True), 78.28, 80.54),
    'width': (dict(width=96), 80.50, 81.85),
    'inverted_bottleneck': (dict(inverted=True), 80.64, 82.64),
    'move_up_depthwise': (dict(spatial_first=True), 79.92, 82.04),
    'kernel_5': (dict(kernel_size=5), 80.35, 82.32),
    'kernel_7': (dict(kernel_size=7), 80.57, 82.30),
    'kernel_9': (dict(kernel_size=9), 80.57, 82.27),
    'kernel_11': (dict(kernel_size=11), 80.47, 82.18),
    'gelu': (dict(kernel_size=7, act=nn.GELU), 80.62, 82.19),
    'fewer_activations': (dict(one_act=True), 81.27, 82.71),
    'fewer_norms': (dict(one_norm=True), 81.41, 83.17),
    'layer_norm': (dict(norm=LayerNorm2d), 81.47, 83.35),
    'separate_downsampling': (dict(separate_downsampling=True), 81.97, 83.60),
}
# Changes of the larger regime that differ. The paper does not print the width of the three steps before `width`; with
# 84 their FLOPs are the printed ones.
LARGE_CHANGES = {
    'resnet': dict(depths=(3, 24, 36, 3)),
    'stage_ratio': dict(depths=(3, 3, 27, 3), width=84),
    'width': dict(width=128),
}


def build_steps(regime: str) -> dict[str, Step]:
    """Step name -> design, of the regime that starts from that ResNet."""
    steps, last = {}, Step()
    for name, (change, *_) in CHANGES.items():
        if regime == 'resnet200':
            change = LARGE_CHANGES.get(name, change)
        last = replace(last, **change)
        steps[regime if name == 'resnet' else name] = last
    return steps


REGIMES = {regime: build_steps(regime) for regime in ('resnet50', 'resnet200')}
STEPS = REGIMES['resnet50']
PAPER_TOP1 = {regime: dict(zip(steps, (row[1 + i] for row in CHANGES.values()), strict=True))
              for i, (regime, steps) in enumerate(REGIMES.items())}


class RoadmapBlock(nn.Module):
    """Residual block of every step before the last, which has ConvNeXt's own.

    Args:
        step: its design.
        dim_in, width, dim: channels of input, middle and output.
        stride: of the spatial convolution and of the shortcut's 1x1 projection.
        drop_path: probability that training skips the branch of a sample.
    """

    def __init__(self, step: Step, dim_in: int, width: int, dim: int, stride: int, drop_path: float):
        super().__init__()
        spatial_dim = dim_in if step.spatial_first else width
        spatial = (spatial_dim, spatial_dim, step.kernel_size, stride, spatial_dim if step.depthwise else 1)
        if step.spatial_first:
            convs = [spatial, (dim_in, width, 1, 1, 1), (width, dim, 1, 1, 1)]
            normed, activated = ([0], [1]) if step.one_norm else ([0, 1, 2], [0, 1])
        else:
            convs = [(dim_in, width, 1, 1, 1), spatial, (width, dim, 1, 1, 1)]
            normed, activated = [0, 1, 2], [0, 1]
        if step.one_act:
            activated = [1]
        layers = []
        for i, (c_in, c_out, kernel, conv_stride, groups) in enumerate(convs):
            # batch norm subtracts a bias again
            bias = i not in normed or step.norm is not nn.BatchNorm2d
            layers.append(nn.Conv2d(c_in, c_out, kernel, conv_stride, kernel // 2, groups=groups, bias=bias))
            if i in normed:
                layers.append(step.norm(c_out))
            if i in activated:
                layers.append(step.act())
        self.branch = nn.Sequential(*layers)
        self.shortcut = nn.Identity()
        if stride > 1 or dim_in != dim:
            bias = step.norm is not nn.BatchNorm2d
            self.shortcut = nn.Sequential(nn.Conv2d(dim_in, dim, 1, stride, bias=bias), step.norm(dim))
        self.act = nn.Identity() if step.one_act else step.act()
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if self.training and self.drop_path > 0:
            y = y * drop_path_scale(x, self.drop_path)
        return self.act(self.shortcut(x) + y)


@MODELS.register_module()
class RoadmapNet(BaseModule):
    """One step between ResNet and ConvNeXt, with ConvNeXt's interface: one feature map per stage.

    Args:
        step: a name of `REGIMES[regime]`.
        in_channels: of the input image.
        drop_path_rate: of the last block; the blocks before it rise linearly from 0.
        out_indices: stages (0 to 3, in order) whose feature maps are returned; later stages are not built.
        output_norm: whether the feature maps of steps whose blocks end without a norm (``fewer_norms`` and later) get
            a norm of the step's kind, ``norm{i}``; earlier steps have none, as ResNet has none.
        channels_last: as of `ConvNeXt`.
        init_cfg: mmengine's.
        regime: 'resnet50' (to ConvNeXt-T) or 'resnet200' (to ConvNeXt-B).

    Raises:
        ValueError: an argument or an input that does not fit, in one sentence.
    """

    def __init__(self, step: str, in_channels: int = 3, drop_path_rate: float = 0.0,
                 out_indices: int | Sequence[int] = (0, 1, 2, 3), output_norm: bool = True,
                 channels_last: bool = False, init_cfg: dict | list | None = None, regime: str = 'resnet50'):
        super().__init__(init_cfg)
        if regime not in REGIMES:
            raise ValueError(f'unknown roadmap regime {regime!r}, expected {" or ".join(REGIMES)}')
        steps = REGIMES[regime]
        if step not in steps:
            near = ', '.join(get_close_matches(str(step), steps, n=len(steps), cutoff=0))
            raise ValueError(f'unknown roadmap step {step!r} of the regime {regime}; known, nearest first: {near}')
        self.step = spec = steps[step]
        self.out_indices = parse_out_indices(out_indices)
        self.in_channels = in_channels
        self.channels_last = channels_last
        self.min_size = 4 * 2 ** self.out_indices[-1]
        stem_dim = spec.width
        widths = [spec.width * 2 ** i * (EXPANSION if spec.inverted else 1) for i in range(4)]
        self.dims = [spec.width * 2 ** i * (1 if spec.inverted else EXPANSION) for i in range(4)]
        rates = torch.linspace(0, drop_path_rate, sum(spec.depths), device='cpu').tolist()

        self.downsample_layers = nn.ModuleList([stem(spec, in_channels, stem_dim)])
        self.stages = nn.ModuleList()
        for i in range(self.out_indices[-1] + 1):
            stage_rates, rates = rates[:spec.depths[i]], rates[spec.depths[i]:]
            dim_in, dim = (self.dims[i - 1] if i else stem_dim), self.dims[i]
            if spec.separate_downsampling:
                if i:
                    self.downsample_layers.append(nn.Sequential(LayerNorm2d(dim_in), nn.Conv2d(dim_in, dim, 2, 2)))
                blocks = [Block(dim, spec.kernel_size, rate, layer_scale=0) for rate in stage_rates]
            else:
                blocks = [RoadmapBlock(spec, dim if j else dim_in, widths[i], dim, 2 if i and not j else 1, rate)
                          for j, rate in enumerate(stage_rates)]
            self.stages.append(nn.Sequential(*blocks))
        for i in self.out_indices:
            has_norm = output_norm and spec.one_norm
            self.add_module(f'norm{i}', spec.norm(self.dims[i]) if has_norm else nn.Identity())
        self.apply(init_like_official if spec.one_norm else init_like_resnet)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) to feature maps (N, dims[i], H / stride, W / stride) of strides 4, 8, 16, 32."""
        check_input(self, x)
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for i, stage in enumerate(self.stages):
            if i < len(self.downsample_layers):
                x = self.downsample_layers[i](x)
            x = stage(x)
            if i in self.out_indices:
                maps.append(getattr(self, f'norm{i}')(x))
        return tuple(maps if self.channels_last else [x.contiguous() for x in maps])

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """As `ConvNeXt.get_layer_depth`; the stem is ``downsample_layers.0`` at every step."""
        return layer_depth(param_name, prefix, self.step.depths)


def stem(step: Step, in_channels: int, dim: int) -> nn.Sequential:
    """Image to the first stage's input, stride 4."""
    if step.patchify:
        bias = step.norm is not nn.BatchNorm2d
        layers = [nn.Conv2d(in_channels, dim, 4, 4, bias=bias), step.norm(dim)]
    else:
        layers = [nn.Conv2d(in_channels, dim, 7, 2, 3, bias=False), step.norm(dim)]
    if not step.one_act:
        layers.append(step.act())
    if not step.patchify:
        layers.append(nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*layers)


def init_like_resnet(module: nn.Module) -> None:
    """He initialisation over the outputs (ResNet as in torchvision), while a norm follows every convolution."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
