"""Parameters and multiply-accumulates of a config's model, by component, as the ConvNeXt papers count them.

Everything runs on torch's meta device: no weights, no memory, and the result does not depend on the machine.
"""
from collections.abc import Callable
from copy import deepcopy

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import UserError
from ..mm import environment

DETECTION_INPUT = (1280, 800)  # width, height; V1 paper, table of COCO results (its appendix names the size)
BOX_ROIS, MASK_ROIS = 1000, 100  # proposals into every box head; detections into every mask head
DENSE_HEADS = ('rpn_head', 'bbox_head', 'mask_head', 'decode_head')  # called with the feature maps
COMPONENTS = ('backbone', 'neck', *DENSE_HEADS, 'roi_head', 'auxiliary_head')


def build_on_meta(cfg: Config) -> nn.Module:
    """The config's model in eval mode on the meta device: shapes without values.

    Raises:
        UserError: the MM packages that the config needs are missing.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    environment.require(*(('mmcv', scope) if scope in ('mmdet', 'mmseg') else ('mmengine',)))
    init_default_scope(scope)
    try:
        with torch.device('meta'):
            model = MODELS.build(deepcopy(cfg.model))  # mmdet's DETRs change their config
    except RuntimeError:  # some backbones (mmdet's Swin) read a tensor's values while they are built
        model = MODELS.build(deepcopy(cfg.model)).to('meta')
    return model.eval()


def published_input(cfg: Config) -> tuple[int, int]:
    """(width, height) that the published FLOPs are for: 1280x800, or 4 crops x 1 crop for segmentation."""
    if cfg.get('default_scope') != 'mmseg':
        return DETECTION_INPUT
    size = cfg.model.get('test_cfg', {}).get('crop_size') or cfg.model.get('data_preprocessor', {}).get('size')
    if not size:
        raise UserError(f'{cfg.filename} names no crop (model.test_cfg.crop_size or model.data_preprocessor.size) '
                        'to derive the published input from: give --shape WIDTH HEIGHT')
    return 4 * size[1], size[0]


def model_info(cfg: Config, shape: tuple[int, int] | None = None) -> dict:
    """Count parameters and multiply-accumulates (MACs; the field calls them FLOPs) of a detector or segmentor.

    Counted are convolutions and matrix products. Detection: one image through backbone, neck and dense heads,
    plus 1000 RoIs through every box head and 100 RoIs through every mask head. Segmentation: backbone, neck and
    decode head; an auxiliary head trains only, so its MACs are 0. ``flops`` are those of the model's definition, which
    papers publish; ``executed`` are those that this package's code computes for the same results (`FastUPerHead`).

    Args:
        cfg: a config with a `model`.
        shape: (width, height) of the input in pixels; default: `published_input`.

    Returns:
        dict(input=[width, height], params=int, flops=int, executed=int, parts={component: dict(params=int, flops=int,
        executed=int)}).

    Raises:
        UserError: a model with other components than these, or a config that names no size.
    """
    width, height = shape or published_input(cfg)
    model = build_on_meta(cfg)
    if has_attention(model):
        raise UserError(f'{cfg.filename}: model_info cannot count {type(model).__name__}, whose attention depends on '
                        'the positions that it samples; it knows convolutional heads')
    for name, part in model.named_children():
        if any(True for _ in part.parameters()) and (name not in COMPONENTS or name == 'decode_head'
                                                     and isinstance(part, nn.ModuleList)):
            raise UserError(f'{cfg.filename}: model_info cannot count {type(model).__name__}.{name}; it knows '
                            f'detectors and segmentors made of {", ".join(COMPONENTS)} with one decode head')
    executed = count_parts(model, (width, height))
    for module in model.modules():
        if hasattr(module, 'fused'):
            module.fused = False
    flops = count_parts(model, (width, height))
    params = {name: sum(p.numel() for p in part.parameters())
              for name, part in [*model.named_children(), *roi_parts(model)] if name != 'roi_head'}
    parts = {name: dict(params=number, flops=flops.get(name, 0), executed=executed.get(name, 0))
             for name, number in params.items() if number}
    return dict(input=[width, height], params=sum(p.numel() for p in model.parameters()), flops=sum(flops.values()),
                executed=sum(executed.values()), parts=parts)


def count_parts(model: nn.Module, shape: tuple[int, int]) -> dict[str, int]:
    """Multiply-accumulates of every component of a model on the meta device."""
    macs = {}

    def count(name: str, part: Callable, *inputs):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            output = part(*inputs)
        macs[name] = macs.get(name, 0) + counter.get_total_flops() // 2  # torch counts a MAC as two operations
        return output

    run_parts(model, shape, count)
    return macs


def run_parts(model: nn.Module, shape: tuple[int, int], call: Callable, images: int = 1, box_rois: int = BOX_ROIS,
              mask_rois: int = MASK_ROIS) -> None:
    """Send images of (width, height) through a model on the meta device: ``call(name, part, *inputs) -> outputs``."""
    channels = getattr(model.backbone, 'in_channels', 3)
    features = call('backbone', model.backbone, torch.empty(images, channels, *reversed(shape), device='meta'))
    if getattr(model, 'neck', None) is not None:
        features = call('neck', model.neck, features)
    for name in DENSE_HEADS if not has_attention(model) else ():
        if isinstance(getattr(model, name, None), nn.Module):
            call(name, getattr(model, name), features)
    if getattr(model, 'roi_head', None) is not None:
        run_roi_heads(model.roi_head, call, box_rois, mask_rois)


def has_attention(model: nn.Module) -> bool:
    """Whether there are attention layers beside the backbone: heads with queries, which shapes alone cannot run."""
    return any(isinstance(module, nn.MultiheadAttention) for name, part in model.named_children() if name != 'backbone'
               for module in part.modules())


def training_bytes(cfg: Config, shape: tuple[int, int]) -> tuple[int, int]:
    """Bytes of memory that training in float32 holds: for the model, and for each image of a batch.

    The model's are weights, gradients and Adam's two moments. An image's are what autograd keeps of its forward pass
    (counted on the meta device; 128 RoIs go through each mask head and 512 through each box head, as the published
    samplers take), times 1.5 for gradients of activations, losses and the allocator. Heads with queries (Mask2Former,
    DINO) are taken to keep twice as much as backbone and neck.

    Args:
        shape: (width, height) of the input in pixels.
    """
    model = build_on_meta(cfg).train()
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    outputs = []

    def call(name: str, part: Callable, *inputs):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs.append(part(*inputs))  # held, so that no storage's identity is used twice
        return outputs[-1]

    images = 2  # batch norm of a pooled map wants more than one
    run_parts(model, shape, call, images, box_rois=images * 512, mask_rois=images * 128)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    activations = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights)
    if has_attention(model):
        activations *= 3
    return 4 * 4 * sum(parameter.numel() for parameter in model.parameters()), round(1.5 * activations / images)


def roi_parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, module) of a two-stage detector's second stage, one entry per child that has parameters."""
    roi_head = getattr(model, 'roi_head', None)
    return [] if roi_head is None else [(f'roi_head.{name}', part) for name, part in roi_head.named_children()]


def run_roi_heads(roi_head: nn.Module, call: Callable, box_rois: int, mask_rois: int) -> None:
    """Send that many RoI features through every box head and every mask head."""
    for kind, rois in (('bbox', box_rois), ('mask', mask_rois)):
        heads = getattr(roi_head, f'{kind}_head', None)
        if heads is None:
            continue
        extractors = getattr(roi_head, f'{kind}_roi_extractor', None) or roi_head.bbox_roi_extractor
        several = isinstance(heads, nn.ModuleList)
        for i, head in enumerate(heads if several else [heads]):
            extractor = extractors[i] if isinstance(extractors, nn.ModuleList) else extractors
            call(f'roi_head.{kind}_head', head, roi_features(extractor, rois))


def roi_features(extractor: nn.Module, rois: int) -> Tensor:
    """RoI features of the shape that an extractor gives, on the meta device."""
    return torch.empty(rois, extractor.out_channels, *extractor.roi_layers[0].output_size, device='meta')


def format_table(info: dict) -> str:
    """The result of `model_info` as text, one line per component."""
    rows = [(name, part['params'], part['flops'], part['executed']) for name, part in info['parts'].items()]
    rows.append(('total', info['params'], info['flops'], info['executed']))
    width = max(len(name) for name, *_ in rows)
    lines = [f'input {info["input"][0]}x{info["input"][1]}',
             f'{"":{width}}  params (M)  FLOPs (GMACs)  executed (GMACs)']
    lines += [f'{name:{width}}  {params / 1e6:10.2f}  {flops / 1e9:13.1f}  {executed / 1e9:16.1f}'
              for name, params, flops, executed in rows]
    return '\n'.join(lines)
