"""A training step without arithmetic worth mention, so that its time on a CPU is what it costs the host of a GPU."""
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from mmengine.config import Config

from ..mm import transfer
from ..models import kernels
from ..models.convnext import parse_arch

WIDTH = 8  # channels of every layer, and classes
SAMPLES = 8  # of the RoI heads, an image
PROPOSALS = 100  # of an image, and boxes of a level before non-maximum suppression
WIDTHS = ('in_channels', 'out_channels', 'feat_channels', 'fc_out_channels', 'conv_out_channels', 'channels',
          'num_classes')


def narrow(cfg: Config) -> None:
    """Make a model's layers narrow, in place. Operators and their number stay."""
    depths, _ = parse_arch(cfg.model.backbone.get('arch', 'tiny'))
    set_widths(cfg.model)
    cfg.model.backbone.arch = dict(depths=list(depths), channels=[WIDTH] * 4)
    rcnn = cfg.model.get('train_cfg', {}).get('rcnn', [])
    for stage in rcnn if isinstance(rcnn, list) else [rcnn]:
        stage.sampler.num = SAMPLES
    if 'rpn_proposal' in cfg.model.get('train_cfg', {}):
        cfg.model.train_cfg.rpn_proposal.update(nms_pre=PROPOSALS, max_per_img=PROPOSALS)
    for name in ('bbox_roi_extractor', 'mask_roi_extractor'):
        extractor = cfg.model.get('roi_head', {}).get(name)
        if extractor:
            extractor.roi_layer.sampling_ratio = 1  # one operator on a CPU too, mmcv's and ours


def set_widths(value) -> None:
    """Set every number of channels or classes in nested dicts and lists of a config."""
    if isinstance(value, list | tuple):
        for item in value:
            set_widths(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in WIDTHS:
                value[key] = [WIDTH] * len(item) if isinstance(item, list | tuple) else WIDTH
            else:
                set_widths(item)


@contextmanager
def operators_of_a_gpu(trainers: dict) -> Iterator[None]:
    """Let a step on a CPU start the operators that it starts on a GPU: fixed shapes, standard layers, foreach AdamW.

    Args:
        trainers: with torch's choice of AdamW's form on a CPU, one parameter at a time, where a config names none.
    """
    for trainer in trainers.values():
        for group in trainer.optim_wrapper.optimizer.param_groups:
            if not group.get('fused'):
                group['foreach'] = True
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(transfer, 'host_would_wait', lambda tensor: True))
        for name in ('HAS_ONEDNN', 'HAS_FAST_PRODUCT'):
            stack.enter_context(mock.patch.object(kernels, name, False))
        yield
