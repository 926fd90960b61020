"""Writing weights in another library's format, by the tables of formats.py from right to left."""
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..mm.fallbacks import print_log
from ..utils.files import atomic_write
from .formats import OFFICIAL, TIMM, TRANSFORMERS, TRANSFORMERS_HEAD, Source, dims_of, recognise, to_format
from .loading import check_finite, check_floats
from .reading import find_state_dict, read_checkpoint
from .report import grouped

TABLES = {'official': OFFICIAL, 'timm': TIMM, 'transformers': TRANSFORMERS}


class Conversion(NamedTuple):
    """A state dict in another format; ``left_out`` are the official names that the format has no names for."""

    state: dict[str, Tensor]
    source: Source
    left_out: list[str]


def convert_file(src: str | os.PathLike, dst: str | os.PathLike, to: str = 'official') -> Path:
    """Write the weights of ``src`` to ``dst`` in the format ``to``, and log what was left out.

    Args:
        src: whatever `read_checkpoint` accepts, in any format that `recognise` knows.
        dst: a ``.pth``/``.pt`` or ``.safetensors`` file; with ``to='transformers'`` also a directory, which then
            gets a config.json and works with ``from_pretrained``.
        to: 'official', 'timm' or 'transformers'.

    Raises:
        UserError: as `read_checkpoint` and `recognise`, or ``dst`` cannot be written so.
    """
    name, dst = os.fspath(src), Path(dst)
    result = convert(find_state_dict(read_checkpoint(src), name), name, to)
    check_floats(result.source.backbone, name)
    check_finite(result.state, name)
    if to == 'transformers' and not dst.suffix:
        dst.mkdir(parents=True, exist_ok=True)
        with atomic_write(dst / 'config.json') as part:
            part.write_text(json.dumps(transformers_config(result.source), indent=2) + '\n')
        dst = dst / 'model.safetensors'
    inner = None if to != 'official' else 'state_dict' if result.source.heads else 'model'
    write(result.state if inner is None or dst.suffix == '.safetensors' else {inner: result.state}, dst)
    left_out = f'; left out, since {to} has no names for them: {grouped(result.left_out)}' if result.left_out else ''
    print_log(f'{name} ({result.source.format.name}) -> {dst} ({to}): {len(result.state)} tensors{left_out}',
              logger='current')
    return dst


def convert(state: Mapping[str, Tensor], name: str, to: str) -> Conversion:
    """As `convert_file`, of a state dict; ``name`` is for messages.

    'official' keeps the heads of a detector or segmentor, with the backbone under ``backbone.``.
    """
    if to not in TABLES:
        raise UserError(f'no format {to!r} to convert to; expected one of {", ".join(TABLES)}')
    source = recognise(state, name)
    if source.unexpected:
        raise UserError(f'{name} has {len(source.unexpected)} parameters that the {source.format.name} format does '
                        f'not know ({grouped(source.unexpected)}): it is of a modified network')
    out, left_out = {}, [*source.unused]
    inner = ''
    if to == 'official' and source.heads:
        inner = 'backbone.'
        out = dict(source.heads)
    elif to == 'transformers' and 'head.weight' in source.backbone:
        inner = 'convnextv2.' if dims_of(source.backbone)[2] == 'V2' else 'convnext.'
    if to != 'official':
        left_out += list(source.heads)
    small_timm = to == 'timm' and dims_of(source.backbone)[1][0] < 96  # timm builds atto to nano with 1x1 convolutions
    for key, tensor in source.backbone.items():
        found = to_format(TABLES[to], key, tensor)
        if found is not None:
            theirs, value = found
            if small_timm and '.pwconv' in key and value.dim() == 2:
                value = value[:, :, None, None]
            out[inner + theirs] = value
        elif to == 'transformers' and (found := to_format(TRANSFORMERS_HEAD, key, tensor)) is not None:
            out[found[0]] = found[1]
        else:
            left_out.append(key)
    return Conversion(out, source, left_out)


def transformers_config(source: Source) -> dict:
    """The config.json with which transformers builds the network of a recognised state dict."""
    depths, dims, version = dims_of(source.backbone)
    stem = source.backbone['downsample_layers.0.0.weight']
    config = {
        'model_type': 'convnextv2' if version == 'V2' else 'convnext',
        'num_channels': stem.shape[1], 'patch_size': stem.shape[2],
        'depths': list(depths), 'hidden_sizes': list(dims), 'num_stages': len(depths),
        'layer_norm_eps': 1e-6,  # of the final norm; 1e-6 in every official file
    }
    family = 'ConvNextV2' if version == 'V2' else 'ConvNext'
    if version == 'V1':
        config['layer_scale_init_value'] = 1e-6 if 'stages.0.0.gamma' in source.backbone else 0.0
    norms = [s for s in range(4) if f'norm{s}.weight' in source.backbone]
    if 'head.weight' in source.backbone:
        config |= {'architectures': [f'{family}ForImageClassification'],
                   'num_labels': source.backbone['head.weight'].shape[0]}
    elif norms:
        config |= {'architectures': [f'{family}Backbone'], 'out_features': [f'stage{s + 1}' for s in norms]}
    else:
        config['architectures'] = [f'{family}Model']
    return config


def write(content: dict, file: Path, meta: dict[str, str] | None = None) -> None:
    """Write a (nested) dict of tensors as .pth/.pt, or a flat one as .safetensors with ``meta``; all or nothing.

    Raises:
        UserError: the folder does not exist, or the suffix is another one.
    """
    if not file.parent.is_dir():
        raise UserError(f'{file.parent} does not exist, so {file.name} cannot be written there: create it')
    if file.suffix not in ('.pth', '.pt', '.safetensors'):
        raise UserError(f'{file} cannot be written: expected a name that ends in .pth, .pt or .safetensors')
    with atomic_write(file) as part:
        if file.suffix == '.safetensors':
            from safetensors.torch import save_file
            # clones: safetensors refuses tensors that share memory, and wants them contiguous
            save_file({key: tensor.detach().clone(memory_format=torch.contiguous_format)
                       for key, tensor in content.items()}, part, metadata={'format': 'pt', **(meta or {})})
        else:
            torch.save(content, part)
