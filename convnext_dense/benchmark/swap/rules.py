"""Put our backbone into a stock config by rule: the channels of what reads its maps follow."""
from collections.abc import Iterator
from copy import deepcopy

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from ...architectures import ARCHITECTURES
from .inputs import SIZE

STRIDES = (4, 8, 16, 32)
# RoIs that train, proposals and results, candidates, queries
MOST = {'num': 64, 'max_per_img': 100, 'nms_pre': 200, 'num_queries': 100}


class NotSwappable(Exception):
    """Why another backbone cannot replace a config's own, in one sentence."""


def swap(model: dict, scope: str, arch: str = 'atto') -> ConfigDict:
    """The config of a model with our backbone instead of its own, without pretrained weights and SyncBN.

    Args:
        model: of a stock config.
        scope: 'mmdet' or 'mmseg'.
        arch: one of ours.
    Raises:
        NotSwappable: the model has no backbone that returns maps of rising strides.
    """
    model = trainable_here(model)
    places = list(backbones(model))
    if not places:
        raise NotSwappable('it has no backbone of its own')
    for holder, key in places:
        if holder[key].get('type') == 'HourglassNet':
            _replace_hourglass(holder, arch)
            continue
        old, strides = _maps(holder, key, scope)
        stages = _stages(holder[key], strides)
        new = [ARCHITECTURES[arch][1][stage] for stage in stages]
        holder[key] = ConfigDict(type='ConvNeXt', arch=arch, out_indices=tuple(stages))
        table = dict(zip(old, new, strict=True))
        for reader in _readers(holder, key):
            _map_channels(reader, table)
        for part in [node for node in dicts(model) if node.get('type') in PARTS]:
            PARTS[part['type']](model, part, new)
    return model


def _replace_hourglass(model: dict, arch: str) -> None:
    """Hourglasses give maps of stride 4, one a stack; CenterNet's neck makes one of any backbone's last map."""
    model['backbone'] = ConfigDict(type='ConvNeXt', arch=arch, out_indices=(3,))
    head = model['bbox_head']
    model['neck'] = ConfigDict(type='CTResNetNeck', in_channels=ARCHITECTURES[arch][1][3], use_dcn=False,
                               num_deconv_filters=(256, 128, head['in_channels']), num_deconv_kernels=(4, 4, 4))
    if 'num_feat_levels' in head:
        head['num_feat_levels'] = 1


def _maps(holder: dict, key: str, scope: str) -> tuple[list[int], list[int]]:
    """As :func:`measure`; for a backbone of mmpretrain's what the reader of four maps expects."""
    backbone, expected = holder[key], _readers(holder, key)[0].get('in_channels')
    if str(backbone.get('type')).startswith('mmpretrain.') and isinstance(expected, list) and len(expected) == 4:
        return expected, list(STRIDES)
    return measure(backbone, scope)


def measure(backbone: dict, scope: str) -> tuple[list[int], list[int]]:
    """Channels and strides of the maps that a backbone's config gives, by building and running it.

    Raises:
        NotSwappable: it cannot be built here, or does not return maps.
    """
    try:
        net = MODELS.build(ConfigDict(backbone, _scope_=scope))
        net.eval()  # which some of mmdet return nothing from
        with torch.no_grad():
            maps = net(torch.zeros(1, 3, 256, 256))
    except Exception as error:  # whatever a foreign network raises is the finding
        raise NotSwappable(f'its {backbone["type"]} cannot be measured: {str(error).splitlines()[0]}') from error
    if not isinstance(maps, (tuple, list)) or not all(isinstance(x, torch.Tensor) and x.dim() == 4 for x in maps):
        raise NotSwappable(f'its {backbone["type"]} does not return plain maps')
    return [x.shape[1] for x in maps], [round(256 / x.shape[2]) for x in maps]


def _stages(backbone: dict, strides: list[int]) -> list[int]:
    """Which of our four stages stand for a backbone's maps: by stride, or by place where dilation keeps strides."""
    if len(set(strides)) == len(strides) and set(strides) <= set(STRIDES):
        return [STRIDES.index(stride) for stride in strides]
    if strides == sorted(strides) and len(strides) <= 4 and (strides[0] < strides[-1] or len(strides) == 1):
        indices = list(backbone.get('out_indices', range(len(strides))))
        return indices if set(indices) <= {0, 1, 2, 3} else list(range(len(strides)))
    raise NotSwappable(f'its {backbone["type"]} returns maps of strides {strides}, which are no pyramid')


def backbones(node, key: str = '') -> Iterator[tuple[dict, str]]:
    """(holder, key) of every backbone to swap: the innermost config under ``backbone`` or ``backbone_cfg``."""
    if isinstance(node, dict):
        for name, value in node.items():
            inner = list(backbones(value, name))
            yield from inner
            if name in ('backbone', 'backbone_cfg') and isinstance(value, dict) and not inner:
                yield node, name
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from backbones(value)


def _readers(holder: dict, key: str) -> list[dict]:
    """The configs of what reads the backbone's maps: the part around it, the (first) neck, or every head."""
    if key == 'backbone_cfg':
        return [holder]
    neck = holder.get('neck')
    if neck:
        return [neck[0] if isinstance(neck, (list, tuple)) else neck]
    return [head for name, value in holder.items() if name.endswith('head')
            for head in (value if isinstance(value, (list, tuple)) else [value])]


def _map_channels(reader: dict, table: dict[int, int]) -> None:
    """Replace old channels by new ones where a reader, or a head inside it that names its map, says them; in place."""
    for part in dicts(reader):
        if part is reader or 'in_index' in part:
            for key, value in part.items():
                if key.endswith(('in_channels', 'in_channel', 'context_channels')):
                    part[key] = type(value)(table.get(v, v) for v in value) if isinstance(value, (list, tuple)) \
                        else table.get(value, value)


# What channels alone do not say, by the type of a part: (model, part, channels of our maps) -> None.
def _after_jpu(model: dict, neck: dict, widths: list[int]) -> None:
    """JPU hands the first maps on beside its own, the last."""
    table = dict(zip((512, 1024), widths, strict=False))
    for head in (model['decode_head'], model['auxiliary_head']):
        _map_channels(head, table)


def _in_ssd(model: dict, neck: dict, widths: list[int]) -> None:
    """The neck hands the backbone's maps on as they are."""
    for part, key in ((neck, 'out_channels'), (model['bbox_head'], 'in_channels')):
        part[key] = (*widths, *part[key][len(widths):])


def _in_bisenet(model: dict, backbone: dict, widths: list[int]) -> None:
    """Both paths end at the width of the second stage; auxiliary heads read the context's."""
    backbone['spatial_channels'] = (*backbone['spatial_channels'][:-1], widths[1])
    for head in model['auxiliary_head']:
        head['in_channels'] = widths[1]


def _in_stdc(model: dict, backbone: dict, widths: list[int]) -> None:
    """The first map joins the context; the head on details reads it, too."""
    backbone['ffm_cfg']['in_channels'] = widths[0] + backbone['out_channels']
    model['auxiliary_head'][2]['in_channels'] = widths[0]


def _in_ocr(model: dict, head: dict, widths: list[int]) -> None:
    """OCR needs the first head's maps at its own resolution; without dilation, stages differ."""
    for key in ('in_index', 'in_channels'):
        model['decode_head'][0][key] = head[key]


PARTS = {'JPU': _after_jpu, 'SSDNeck': _in_ssd, 'BiSeNetV1': _in_bisenet, 'STDCContextPathNet': _in_stdc,
         'OCRHead': _in_ocr}


def dicts(node) -> Iterator[dict]:
    """Every config inside a config, itself included."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from dicts(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from dicts(value)


def trainable_here(model: dict) -> dict:
    """A copy without what needs a download or several processes, pads images to the recipe's size, or takes long."""
    model = deepcopy(model)
    for node in list(dicts(model)):
        for key in ('pretrained', 'teacher_ckpt'):
            if key in node:
                node[key] = None
        init = node.get('init_cfg')
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            node['init_cfg'] = None
        if node.get('type') in ('SyncBN', 'MMSyncBN'):
            node['type'] = 'BN'
        for key, most in MOST.items():
            if isinstance(node.get(key), int) and (key != 'num' or 'pos_fraction' in node):
                node[key] = min(node[key], most)
        if node.get('batch_augments'):
            node['batch_augments'] = None
        if node.get('type') == 'SegDataPreProcessor':
            node['size'] = SIZE
    return model
