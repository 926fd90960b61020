"""ConvNeXt V1 and V2 as a dense-prediction backbone: the block and the network.

Papers: "A ConvNet for the 2020s" (V1) and "ConvNeXt V2" (V2). Parameter names and results are those of the
official repositories. Feature maps are (N, C, H, W) tensors in channels-last memory from the stem to the output norms,
so the channel-wise layers (LayerNorm, linear, GELU, GRN) work on (N, H, W, C) views without any copy.
"""
from collections.abc import Sequence
from difflib import SequenceMatcher

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..architectures import ARCHITECTURES
from ..checkpoints import load_checkpoint
from ..mm.fallbacks import MODELS, BaseModule
from .fused import choose, ops
from .fused.choice import result_dtype
from .kernels import DepthwiseConv2d, Linear, gelu
from .layers import GRN, LayerNorm2d, drop_path_scale, init_like_official

EXPANSION = 4  # width of the block's inverted bottleneck over its channels


class Block(nn.Module):
    """x + scale * pwconv2(GELU(pwconv1(norm(dwconv(x))))), with GRN after the GELU in V2.

    Args:
        dim: channels.
        kernel_size: of the depthwise convolution, odd.
        drop_path: probability that training skips the branch of a sample, 0 to 1.
        layer_scale: initial value of the per-channel scale ``gamma``; 0 builds none.
        use_grn: V2's global response normalisation.
    """

    def __init__(self, dim: int, kernel_size: int = 7, drop_path: float = 0.0, layer_scale: float = 1e-6,
                 use_grn: bool = False):
        super().__init__()
        self.dwconv = DepthwiseConv2d(dim, kernel_size)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = Linear(dim, EXPANSION * dim)
        self.grn = GRN(EXPANSION * dim) if use_grn else None
        self.pwconv2 = Linear(EXPANSION * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), float(layer_scale))) if layer_scale > 0 else None
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.dwconv, self.norm
        if conv.kernel_size == (7, 7) and norm.weight is not None:
            y = choose('depthwise convolution and norm', self.mix, self.mix_fused, [x],
                       [conv.weight, conv.bias, norm.weight, norm.bias])
        else:
            y = self.mix(x)
        y = gelu(self.pwconv1(y))
        if self.grn is not None:
            y = self.grn(y)
        return self.add(x, self.pwconv2(y).permute(0, 3, 1, 2))

    def mix(self, x: Tensor) -> Tensor:
        """Norm of the depthwise convolution, (N, H, W, C)."""
        return self.norm(self.dwconv(x).permute(0, 2, 3, 1))  # a view: x is channels-last

    def mix_fused(self, x: Tensor) -> Tensor:
        return ops.depthwise_norm(x.permute(0, 2, 3, 1).contiguous(), self.dwconv.weight, self.dwconv.bias,
                                  self.norm.weight, self.norm.bias, self.norm.eps, result_dtype(x))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Residual sum; layer scale and drop path are one factor per channel or sample, so all three are one pass."""
        keep = drop_path_scale(x, self.drop_path) if self.training and self.drop_path > 0 else None
        if self.gamma is None:
            return x + y if keep is None else torch.addcmul(x, y, keep)
        gamma = self.gamma

        def plain(x: Tensor, y: Tensor) -> Tensor:
            scale = gamma.view(1, -1, 1, 1)
            return torch.addcmul(x, y, scale if keep is None else keep * scale)

        def fused(x: Tensor, y: Tensor) -> Tensor:
            dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), gamma.dtype)
            x, y = (map_.permute(0, 2, 3, 1).contiguous() for map_ in (x, y))
            return ops.residual(x, y, gamma, None if keep is None else keep.flatten(), dtype).permute(0, 3, 1, 2)

        return choose('layer scale and sum', plain, fused, [x, y], [gamma])


@MODELS.register_module()
class ConvNeXt(BaseModule):
    """ConvNeXt V1 or V2 that returns one feature map per stage, for detection and segmentation.

    Args:
        arch: a name of `ARCHITECTURES`, or ``dict(depths=[...], channels=[...])`` with four values each.
        in_channels: of the input image.
        stem_patch_size: stride of the first feature map; every further stage doubles it.
        kernel_size: of the depthwise convolutions, odd; 7 is the published network.
        norm_cfg, act_cfg: accepted for mmpretrain's configs; only LN2d with eps 1e-6 and GELU exist.
        linear_pw_conv: accepted for mmpretrain's configs; the result is the same either way.
        use_grn: V2's block. Layer scale then defaults to off.
        drop_path_rate: of the last block; the blocks before it rise linearly from 0 (official schedule).
        layer_scale_init_value: None means 1e-6, or off with ``use_grn``; 0 is off.
        out_indices: stages (0 to 3, in order) whose feature maps are returned. Later stages are not built, so every
            parameter gets a gradient.
        frozen_stages: how many stages (0 to 4, each with the stem or downsampling before it) stay fixed and
            in eval mode.
        frozen_norms: whether the output norms stay fixed, too; they are trained otherwise, whatever is frozen.
        output_norm: whether every returned feature map has its own LayerNorm, ``norm{i}``.
        gap_before_final_norm: False; mmpretrain's True makes a classifier.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        channels_last: return the feature maps in channels-last memory, without a copy, as our recipes do. The default
            is a contiguous copy of each for any head: some of mmdet and mmseg call ``.view`` on their input.
        init_cfg: mmengine's; weights start as the official ones without it. ``Pretrained`` also takes ``final_norm``,
            see `load_checkpoint`.

    Raises:
        ValueError: an argument or an input that does not fit, in one sentence.
    """

    def __init__(self, arch: str | dict = 'tiny', in_channels: int = 3, stem_patch_size: int = 4,
                 kernel_size: int = 7, norm_cfg: dict | None = None, act_cfg: dict | None = None,
                 linear_pw_conv: bool = True, use_grn: bool = False, drop_path_rate: float = 0.0,
                 layer_scale_init_value: float | None = None, out_indices: int | Sequence[int] = (0, 1, 2, 3),
                 frozen_stages: int = 0, output_norm: bool = True, gap_before_final_norm: bool = False,
                 with_cp: bool = False, channels_last: bool = False, frozen_norms: bool = False,
                 init_cfg: dict | list | None = None):
        super().__init__(init_cfg)
        self.depths, self.dims = parse_arch(arch)
        self.out_indices = parse_out_indices(out_indices)
        check_published_only(norm_cfg, act_cfg, gap_before_final_norm)
        if kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd to keep the size of a feature map, got {kernel_size}')
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate is a probability, 0 <= rate < 1, got {drop_path_rate}')
        if frozen_stages not in range(-1, 5):
            raise ValueError(f'frozen_stages is a number of stages, 0 to 4, got {frozen_stages}')
        self.in_channels = in_channels
        self.frozen_stages = max(frozen_stages, 0)  # -1 is how mmdet's backbones say none
        self.frozen_norms = frozen_norms
        self.with_cp = with_cp
        self.channels_last = channels_last
        if layer_scale_init_value is None:
            layer_scale_init_value = 0.0 if use_grn else 1e-6

        rates = torch.linspace(0, drop_path_rate, sum(self.depths), device='cpu').tolist()
        self.downsample_layers, self.stages = nn.ModuleList(), nn.ModuleList()
        for i in range(self.out_indices[-1] + 1):
            dim, first = self.dims[i], sum(self.depths[:i])
            if i == 0:
                down = [nn.Conv2d(in_channels, dim, stem_patch_size, stem_patch_size), LayerNorm2d(dim)]
            else:
                down = [LayerNorm2d(self.dims[i - 1]), nn.Conv2d(self.dims[i - 1], dim, 2, 2)]
            self.downsample_layers.append(nn.Sequential(*down))
            self.stages.append(nn.Sequential(*(
                Block(dim, kernel_size, rates[first + j], layer_scale_init_value, use_grn)
                for j in range(self.depths[i]))))
        for i in self.out_indices:
            self.add_module(f'norm{i}', LayerNorm2d(self.dims[i]) if output_norm else nn.Identity())
        self.min_size = stem_patch_size * 2 ** self.out_indices[-1]
        self.apply(init_like_official)
        self.to(memory_format=torch.channels_last)
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) to feature maps (N, dims[i], H // stride, W // stride)."""
        check_input(self, x)
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for i, (down, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = down(x)
            for block in stage:
                if self.with_cp and block.training and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            if i in self.out_indices:
                maps.append(getattr(self, f'norm{i}')(x))
        return tuple(maps if self.channels_last else [x.contiguous() for x in maps])

    def freeze(self) -> None:
        """Fix the parameters of the first ``frozen_stages`` stages, and of frozen norms, and put them in eval mode."""
        norms = [getattr(self, f'norm{i}') for i in self.out_indices] if self.frozen_norms else []
        for part in (*self.downsample_layers[:self.frozen_stages], *self.stages[:self.frozen_stages], *norms):
            part.eval()
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> 'ConvNeXt':
        super().train(mode)
        self.freeze()
        return self

    def init_weights(self) -> None:
        """As mmengine's, but ``Pretrained`` recognises every published format (see convnext_dense.checkpoints)."""
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            load_checkpoint(self, self.init_cfg['checkpoint'], prefix=self.init_cfg.get('prefix'),
                            final_norm=self.init_cfg.get('final_norm', False))
            self._is_init = True
        else:
            super().init_weights()

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer id of a parameter and the number of ids, for layer-wise learning-rate decay.

        The official ``layer_wise`` rule: stage 3 counts by three blocks, the other stages as a whole. The
        multiplier of a parameter is ``rate ** (number - 1 - id)``, as with mmpretrain's backbones; ``number``
        is the official ``num_layers + 2``. Names outside the backbone, and output norms, are the last id.

        Args:
            param_name: as in ``named_parameters()`` of the model.
            prefix: of the backbone's own names, as ``'backbone.'``.
        """
        return layer_depth(param_name, prefix, self.depths)


def check_input(net: nn.Module, x: Tensor) -> None:
    """Raise ValueError for an input that is too small for ``net``, or of another shape."""
    name, size = type(net).__name__, net.min_size
    if x.dim() != 4 or x.shape[1] != net.in_channels:
        raise ValueError(f'{name} expects an input of shape (N, {net.in_channels}, H, W), got {tuple(x.shape)}')
    if x.shape[2] < size or x.shape[3] < size:
        raise ValueError(f'{name} needs an input of at least {size}x{size} pixels, one position of its stride-{size} '
                         f'feature map, got {x.shape[2]}x{x.shape[3]}')


def layer_depth(param_name: str, prefix: str, depths: Sequence[int]) -> tuple[int, int]:
    """See `ConvNeXt.get_layer_depth`."""
    last_stage = 3 + -(-depths[2] // 3)  # 6 for nine blocks, 12 for 27, the official num_layers
    layer_id = last_stage + 1
    if param_name.startswith(prefix):
        kind, *rest = param_name[len(prefix):].split('.')
        if kind in ('downsample_layers', 'stages'):
            stage = int(rest[0])
            if kind == 'downsample_layers':
                layer_id = (0, 2, 3, last_stage)[stage]
            else:
                layer_id = (1, 2, 3 + int(rest[1]) // 3, last_stage)[stage]
    return layer_id, last_stage + 2


def parse_arch(arch: str | dict) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(depths, channels) of an architecture's name or dict; ValueError if there is none such."""
    if isinstance(arch, str):
        if arch not in ARCHITECTURES:
            near = sorted(ARCHITECTURES, key=lambda name: -SequenceMatcher(None, arch.lower(), name).ratio())
            raise ValueError(f'unknown ConvNeXt arch {arch!r}; known, nearest first: {", ".join(near)}')
        return ARCHITECTURES[arch]
    if not isinstance(arch, dict) or set(arch) != {'depths', 'channels'}:
        raise ValueError(f'arch must be a name or dict(depths=[...], channels=[...]), got {arch!r}')
    for key in ('depths', 'channels'):
        if len(arch[key]) != 4 or not all(isinstance(value, int) and value > 0 for value in arch[key]):
            raise ValueError(f'arch[{key!r}] must hold four positive integers, one per stage, got {arch[key]!r}')
    return tuple(arch['depths']), tuple(arch['channels'])


def parse_out_indices(out_indices: int | Sequence[int]) -> tuple[int, ...]:
    """Stage indices as a rising tuple; ValueError otherwise."""
    indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    if not indices or any(i not in range(4) for i in indices) or list(indices) != sorted(set(indices)):
        raise ValueError(f'out_indices must be rising stage indices from 0 to 3, got {out_indices!r}')
    return indices


def check_published_only(norm_cfg: dict | None, act_cfg: dict | None, gap_before_final_norm: bool) -> None:
    """ValueError for mmpretrain settings that mean another network than the published one."""
    if norm_cfg is not None and (norm_cfg.get('type') != 'LN2d' or norm_cfg.get('eps', 1e-6) != 1e-6):
        raise ValueError(f"norm_cfg can only be the published dict(type='LN2d', eps=1e-6), got {norm_cfg!r}")
    if act_cfg is not None and act_cfg != dict(type='GELU'):
        raise ValueError(f"act_cfg can only be the published dict(type='GELU'), got {act_cfg!r}")
    if gap_before_final_norm:
        raise ValueError('gap_before_final_norm=True pools the feature maps and suits a classifier only; '
                         'a dense backbone needs gap_before_final_norm=False')
