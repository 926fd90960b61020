"""Layer-wise and stage-wise learning-rate decay, as the official ConvNeXt recipes for COCO and ADE20K use it.

A parameter's learning rate is the optimizer's times a multiplier that falls towards the stem. The layer comes
from the backbone itself (`get_layer_depth`), so any backbone that offers that method can be trained this way.
"""
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from ..errors import UserError

DECAY_TYPES = ('layer_wise', 'stage_wise')
KNOWN_KEYS = ('decay_rate', 'decay_type', 'num_layers', 'custom_keys')


@dataclass(frozen=True)
class ParamSetting:
    """What the optimizer does with one parameter.

    Attributes:
        layer: id of its layer, 0 at the stem; everything outside the backbone's layers has the largest.
        multiplier: on the learning rate.
        weight_decay: absolute, not a multiplier.
    """
    layer: int
    multiplier: float
    weight_decay: float


def parameter_settings(model: nn.Module, paramwise_cfg: Mapping, weight_decay: float) -> dict[str, ParamSetting]:
    """Name to setting for every trainable parameter of a model.

    ``layer_wise`` takes the layer from the backbone's ``get_layer_depth(name, prefix) -> (id, number of ids)``
    and multiplies by ``decay_rate ** (number - 1 - id)``. ``stage_wise`` gives stem and downsampling layers id
    0, stage s (0-based) id s + 1, everything else the last id, with the same exponent; stages are what the
    backbone calls ``stages.{s}``. Both rules are those of the official ConvNeXt repository
    (object_detection and semantic_segmentation, layer-decay optimizer constructor).
    No weight decay for one-dimensional parameters, for biases, and for GRN's gamma and beta.

    Args:
        model: with a ``backbone``, or a backbone itself.
        paramwise_cfg: ``decay_rate`` in (0, 1]; ``decay_type`` 'layer_wise' or 'stage_wise'; ``num_layers``
            (optional), the published depth setting, checked against the backbone: 6 for depths (3, 3, 9, 3),
            12 for (3, 3, 27, 3); ``custom_keys`` (optional), part of a name -> dict(lr_mult=..., decay_mult=...),
            the longest that occurs in a name counts: lr_mult multiplies the layer's multiplier, decay_mult
            multiplies the optimizer's weight decay and overrides the exemptions.
        weight_decay: the optimizer's.

    Raises:
        UserError: an unknown or missing key, a value out of range, a backbone that does not say its depth, a
            ``num_layers`` that does not fit it, a custom key that no parameter has.
    """
    check_config(paramwise_cfg)
    prefix, backbone = ('backbone.', model.backbone) if hasattr(model, 'backbone') else ('', model)
    last_layer = find_last_layer(backbone, paramwise_cfg.get('num_layers'))
    stage_wise = paramwise_cfg['decay_type'] == 'stage_wise'
    if stage_wise and not any(name.startswith('stages.') for name, _ in backbone.named_parameters()):
        raise UserError(f"decay_type='stage_wise' needs a backbone with parameters named stages.0 to stages.3; "
                        f"{type(backbone).__name__} has none, so use decay_type='layer_wise'")

    custom_keys = paramwise_cfg.get('custom_keys') or {}
    by_length = sorted(custom_keys, key=lambda key: (-len(key), key))
    unused = set(custom_keys)
    settings = {}
    for name, param in model.named_parameters():
        key = next((key for key in by_length if key in name), None)
        unused.discard(key)
        if not param.requires_grad:
            continue
        layer = stage_layer(name, prefix, last_layer) if stage_wise else backbone.get_layer_depth(name, prefix)[0]
        custom = custom_keys.get(key, {})
        multiplier = paramwise_cfg['decay_rate'] ** (last_layer - layer) * custom.get('lr_mult', 1.0)
        decay_mult = custom.get('decay_mult', 0.0 if is_exempt(name, param) else 1.0)
        settings[name] = ParamSetting(layer, multiplier, weight_decay * decay_mult)
    if unused:
        raise UserError(f'paramwise_cfg.custom_keys: no parameter of {type(model).__name__} has '
                        f'{", ".join(map(repr, sorted(unused)))} in its name; correct or remove it')
    return settings


def is_exempt(name: str, param: torch.Tensor) -> bool:
    """Whether a parameter gets no weight decay.

    GRN is exempt by name, since its (1, 1, 1, C) parameters in the official V2 code are not one-dimensional.
    """
    parts = name.split('.')
    is_grn = len(parts) > 1 and parts[-2] == 'grn' and parts[-1] in ('gamma', 'beta')
    return param.ndim == 1 or parts[-1] == 'bias' or is_grn


def stage_layer(name: str, prefix: str, last_layer: int) -> int:
    """Layer id of a parameter under the stage-wise rule."""
    parts = name[len(prefix):].split('.') if name.startswith(prefix) else ['']
    if parts[0] in ('stem', 'downsample_layers'):
        return 0
    return int(parts[1]) + 1 if parts[0] == 'stages' else last_layer


def check_config(paramwise_cfg: Mapping) -> None:
    """UserError for a paramwise_cfg that cannot be what its author meant."""
    unknown = sorted(set(paramwise_cfg) - set(KNOWN_KEYS))
    if unknown:
        raise UserError(f'optim_wrapper.paramwise_cfg: unknown key {", ".join(map(repr, unknown))}; '
                        f'LayerDecayOptimWrapperConstructor knows {", ".join(KNOWN_KEYS)}')
    rate, kind = paramwise_cfg.get('decay_rate'), paramwise_cfg.get('decay_type')
    if not isinstance(rate, int | float) or not 0 < rate <= 1:
        raise UserError(f'optim_wrapper.paramwise_cfg.decay_rate must be a number, 0 < rate <= 1, got {rate!r}')
    if kind not in DECAY_TYPES:
        raise UserError(f'optim_wrapper.paramwise_cfg.decay_type must be one of {", ".join(map(repr, DECAY_TYPES))}, '
                        f'got {kind!r}')
    for key, custom in (paramwise_cfg.get('custom_keys') or {}).items():
        if not isinstance(custom, Mapping) or not set(custom) <= {'lr_mult', 'decay_mult'}:
            raise UserError(f'optim_wrapper.paramwise_cfg.custom_keys[{key!r}] must be a dict of lr_mult and '
                            f'decay_mult, got {custom!r}')


def find_last_layer(backbone: nn.Module, num_layers: int | None) -> int:
    """The largest layer id, official ``num_layers + 1``; UserError where ``num_layers`` is not the backbone's."""
    if not hasattr(backbone, 'get_layer_depth'):
        raise UserError(f'layer decay needs a backbone with get_layer_depth(param_name, prefix), which '
                        f"{type(backbone).__name__} has not; set optim_wrapper.constructor to "
                        f"'DefaultOptimWrapperConstructor' to train it without")
    last_layer = backbone.get_layer_depth('', 'backbone.')[1] - 1
    if num_layers is not None and num_layers != last_layer - 1:
        raise UserError(f'optim_wrapper.paramwise_cfg.num_layers is {num_layers}, but the depth of '
                        f'{type(backbone).__name__} asks for {last_layer - 1}; set it so, or leave it out')
    return last_layer


def format_groups(model: nn.Module, settings: Mapping[str, ParamSetting], lr: float) -> str:
    """Table of parameter groups: layer, multiplier, learning rate, weight decay, size, and what is in them.

    Args:
        model: the model that the settings are of.
        settings: as `parameter_settings` returns them.
        lr: the optimizer's.
    """
    groups = {}
    for name, setting in settings.items():
        groups.setdefault(setting, []).append(name)
    params = dict(model.named_parameters())

    def size(names) -> int:
        return sum(params[name].numel() for name in names)

    lines = [f'{"layer":>5}  {"multiplier":>10}  {"lr":>9}  {"decay":>6}  {"tensors":>7}  {"params":>11}  modules']
    for setting, names in sorted(groups.items(), key=lambda item: (item[0].layer, -item[0].weight_decay)):
        lines.append(f'{setting.layer:5}  {setting.multiplier:10.6f}  {lr * setting.multiplier:9.3e}  '
                     f'{setting.weight_decay:6.3g}  {len(names):7}  {size(names):11,}  {shorten(names)}')
    frozen = size(name for name, param in params.items() if not param.requires_grad)
    return '\n'.join([*lines, f'{len(groups)} groups, {len(settings)} tensors, {size(settings):,} parameters; '
                               f'{frozen:,} frozen'])


def shorten(names: list[str]) -> str:
    """The modules that parameters are in: blocks of the backbone as ``stages.2.0-8``, other components by name."""
    modules = {}
    for name in names:
        block = re.match(r'backbone\.(stages\.\d+|downsample_layers)\.(\d+)', name)
        if block:
            modules.setdefault(block[1], set()).add(int(block[2]))
        else:
            modules.setdefault(name.removeprefix('backbone.').split('.')[0], set())
    texts = []
    for module, numbers in modules.items():
        first, last = min(numbers, default=0), max(numbers, default=0)
        run = f'{first}-{last}' if last - first == len(numbers) - 1 > 0 else ','.join(map(str, sorted(numbers)))
        texts.append(f'{module}.{run}' if numbers else module)
    return ', '.join(texts)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Optimizer wrapper with one parameter group per learning rate and weight decay; see `parameter_settings`.

    torch's fused optimizers are used where they exist and the config says neither ``fused`` nor ``foreach``: one launch
    a group instead of one an operation, and with fp16's scaler no wait for whether the gradients are finite.

    Args:
        optim_wrapper_cfg: as mmengine's; ``optimizer`` must name ``lr`` and ``weight_decay``.
        paramwise_cfg: see `parameter_settings`.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        for key, value in (('lr', self.base_lr), ('weight_decay', self.base_wd)):
            if value is None:
                raise UserError(f'optim_wrapper.optimizer.{key} must be given for layer decay')

    def __call__(self, model: nn.Module):
        model = getattr(model, 'module', model)
        params = dict(model.named_parameters())
        groups = {}
        for name, setting in parameter_settings(model, self.paramwise_cfg, self.base_wd).items():
            group = groups.setdefault((setting.multiplier, setting.weight_decay), dict(
                params=[], param_names=[], lr_scale=setting.multiplier, lr=self.base_lr * setting.multiplier,
                weight_decay=setting.weight_decay))
            group['params'].append(params[name])
            group['param_names'].append(name)
        print_log(f'Layer decay {self.paramwise_cfg["decay_type"]}, rate {self.paramwise_cfg["decay_rate"]}: '
                  f'{sum(len(group["params"]) for group in groups.values())} parameters in {len(groups)} groups',
                  logger='current')
        optimizer_cfg = dict(self.optimizer_cfg, params=list(groups.values()))
        if has_fused_form(self.optimizer_cfg, params.values()):
            optimizer_cfg['fused'] = True
        return OPTIM_WRAPPERS.build(self.optim_wrapper_cfg,
                                    default_args=dict(optimizer=OPTIMIZERS.build(optimizer_cfg)))


def has_fused_form(optimizer_cfg: Mapping, params: Iterable[torch.Tensor]) -> bool:
    """Whether torch has a fused form of the optimizer on the parameters' device, and the config does not choose."""
    kind = optimizer_cfg['type']
    kind = OPTIMIZERS.get(kind) if isinstance(kind, str) else kind
    return (kind in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD)
            and not {'fused', 'foreach', 'capturable', 'differentiable'} & set(optimizer_cfg)
            and all(param.device.type in ('cuda', 'cpu') and param.is_floating_point() for param in params))
