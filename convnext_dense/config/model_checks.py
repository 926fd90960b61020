"""Checks of a model that take no training step."""
import logging
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS

from ..checkpoints import downloads, zoo
from ..errors import UserError, few
from ..mm import operators
from ..optim.sharding import SHARDABLE


def check_channels(cfg: Config) -> None:
    """Check that what reads our backbone's maps expects their widths: the neck, or every head without one.

    Raises:
        UserError: names the first ``in_channels`` or ``in_index`` that does not fit and what would, or what is wrong
            with the backbone's own arguments.
    """
    for place, holder in _holders(cfg.model, 'model'):
        widths = _widths(f'{place}.backbone', holder['backbone'], cfg.get('default_scope'))
        if widths is None:
            continue
        found = f'{place}.backbone gives maps of {", ".join(map(str, widths))} channels'
        neck = holder.get('neck')
        if neck:
            first, name = (neck[0], 'neck[0]') if isinstance(neck, (list, tuple)) else (neck, 'neck')
            _check_all(f'{place}.{name}.in_channels', first.get('in_channels'), widths, found)
            continue
        for name, heads in holder.items():
            if not name.endswith('_head'):
                continue
            for index, head in enumerate(heads if isinstance(heads, (list, tuple)) else [heads]):
                where = f'{place}.{name}' + (f'[{index}]' if isinstance(heads, (list, tuple)) else '')
                if cfg.get('default_scope') == 'mmseg':
                    _check_selected(where, head, widths, found)
                else:
                    _check_all(f'{where}.in_channels', head.get('in_channels'), widths, found)


def check_weights(cfg: Config) -> None:
    """Check that the weights a config starts from may be downloaded, and log a licence that limits their use.

    Raises:
        UserError: they are behind a licence that has to be accepted first, and not in the cache.
    """
    names = [holder['backbone'].get('init_cfg') for _, holder in _holders(cfg.model, 'model')]
    names = [init.get('checkpoint') for init in names if isinstance(init, dict)] + [cfg.get('load_from')]
    for weight in (zoo.WEIGHTS[name] for name in names if name in zoo.WEIGHTS):
        downloads.check_access(weight.url)
        if weight.noncommercial:
            print_log(f'{weight.name}: {weight.licence}, so neither these weights nor what is trained from them may be '
                      'used commercially', logger='current', level=logging.WARNING)


def check_operators(model: torch.nn.Module) -> None:
    """Check that every layer's operators are available.

    Raises:
        UserError: names the layers and the operator.
    """
    found = operators.unavailable_in(model)
    if found:
        operator = next(iter(found.values()))
        layers = [name for name, needed in found.items() if needed == operator]
        raise UserError(f'{few(layers)} of the model need{"s" if len(layers) == 1 else ""} the mmcv operator '
                        f'{operator}, which the installed mmcv does not bring and convnext_dense does not have: build '
                        'mmcv with its operators (docs/operators.md), or choose another layer')


def _holders(node, place: str) -> Iterator[tuple[str, dict]]:
    """Every part of a model that has a backbone, with its place in the config."""
    if isinstance(node, dict):
        if isinstance(node.get('backbone'), dict):
            yield place, node
        for key, value in node.items():
            yield from _holders(value, f'{place}.{key}')


def _widths(place: str, backbone: dict, scope: str | None) -> list[int] | None:
    """Channels of the maps that one of our backbones returns; None for any other backbone."""
    kind = backbone.get('type')
    cls = MODELS.get(kind) if isinstance(kind, str) and kind.split('.')[-1] in ('ConvNeXt', 'RoadmapNet') else kind
    if not isinstance(cls, type) or not cls.__module__.startswith('convnext_dense.'):
        return None
    options = {key: value for key, value in backbone.items() if key not in ('type', 'init_cfg')}
    try:
        with torch.device('meta'):
            net = cls(**options)
    except (ValueError, TypeError) as error:
        raise UserError(f'{place}: {error}') from error
    return [net.dims[stage] for stage in net.out_indices]


def _check_all(where: str, expected, widths: list[int], found: str) -> None:
    """A part that reads all maps, or (one number) one of them."""
    if isinstance(expected, (list, tuple)) and list(expected) not in (widths, widths[::-1]):
        raise UserError(f'{where} is {list(expected)}, but {found}: set it to {widths}')
    if isinstance(expected, int) and expected not in widths:
        raise UserError(f'{where} is {expected}, but {found}: set it to the one that is read')


def _check_selected(where: str, head: dict, widths: list[int], found: str) -> None:
    """A head of mmseg, which reads the maps that ``in_index`` names, -1 without it."""
    expected = head.get('in_channels')
    if expected is None:
        return
    several = isinstance(expected, (list, tuple))
    index = head.get('in_index', list(range(len(expected))) if several else -1)
    indices = list(index) if isinstance(index, (list, tuple)) else [index]
    if any(not -len(widths) <= i < len(widths) for i in indices):
        raise UserError(f'{where}.in_index is {index}, but {found}, which are numbered from 0 to {len(widths) - 1}: '
                        'name maps that there are')
    right = [widths[i] for i in indices]
    if (list(expected) if several else [expected]) != right:
        raise UserError(f'{where}.in_channels is {list(expected) if several else expected}, but {found}: set it to '
                        f'{right if several else right[0]}')


def check_sharding(cfg: Config, processes: int) -> None:
    """Refuse a config whose optimizer state cannot be divided among the processes.

    Raises:
        UserError: one process, another model wrapper than DDP, another optimizer wrapper, or an optimizer that looks at
            several parameters at once.
    """
    def name(part) -> str:
        kind = (part or {}).get('type')
        return getattr(kind, '__name__', str(kind)).rpartition('.')[2]

    if processes == 1:
        raise UserError('--shard divides the state of the optimizer among processes, but there is only one: start more '
                        'with tools/dist_train.sh CONFIG GPUS --shard, or leave --shard out')
    wrapper = name(cfg.get('model_wrapper_cfg'))
    if wrapper not in ('None', 'MMDistributedDataParallel'):
        raise UserError(f'--shard works with MMDistributedDataParallel, but model_wrapper_cfg names {wrapper}: remove '
                        'model_wrapper_cfg, or leave --shard out')
    wrapper = name(cfg.optim_wrapper)
    if wrapper not in ('None', 'OptimWrapper', 'AmpOptimWrapper', 'MixedPrecisionOptimWrapper'):
        raise UserError(f'--shard works with OptimWrapper and AmpOptimWrapper, but optim_wrapper names {wrapper}: use '
                        'one of them, or leave --shard out')
    optimizer = name(cfg.optim_wrapper.get('optimizer'))
    if optimizer not in SHARDABLE:
        raise UserError(f'--shard: the state of {optimizer} cannot be divided among processes; use one of '
                        f'{", ".join(SHARDABLE)}, or leave --shard out')
