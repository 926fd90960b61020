"""A segmenter's training forward pass under mixed precision: every loss sees logits upsampled in float32."""
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

RECIPE = Path(__file__).resolve().parents[2] / 'configs/seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py'
SIZE, CLASSES = 128, 5


def small(stock: bool = False) -> torch.nn.Module:
    """The recipe's segmenter with narrow layers and random weights."""
    init_default_scope('mmseg')
    cfg = Config.fromfile(RECIPE).model
    cfg.data_preprocessor.size = (SIZE, SIZE)
    cfg.backbone.update(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]), init_cfg=None)
    cfg.decode_head.update(in_channels=[8, 16, 24, 32], channels=16, num_classes=CLASSES)
    cfg.auxiliary_head.update(in_channels=24, channels=16, num_classes=CLASSES)
    if stock:
        cfg.decode_head.type, cfg.auxiliary_head.type = 'UPerHead', 'FCNHead'
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg))
    for head in (model.decode_head, model.auxiliary_head):
        torch.nn.init.normal_(head.conv_seg.weight)  # logits that differ
    return model.train()


def forward(model: torch.nn.Module, dtype: torch.dtype) -> tuple[dict, dict, dict]:
    """Losses, and by head the logits that it predicts and those that its loss compares."""
    generator = torch.Generator().manual_seed(0)
    samples = [SegDataSample() for _ in range(2)]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.randint(0, CLASSES, (1, SIZE, SIZE), generator=generator))
    images = [torch.randint(0, 256, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8) for _ in samples]
    predicted, compared = {}, {}
    for name in ('decode_head', 'auxiliary_head'):
        head = getattr(model, name)
        head.conv_seg.register_forward_hook(lambda _, args, out, name=name: predicted.update({name: out.detach()}))
        head.loss_decode.register_forward_pre_hook(lambda _, args, name=name: compared.update({name: args[0].detach()}))
    batch = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    with torch.autocast('cpu', dtype):
        losses = model(**batch, mode='loss')
    return losses, predicted, compared


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_losses_of_the_recipe_are_float32(dtype):
    losses, predicted, compared = forward(small(), dtype)
    assert len(compared) == 2
    for name, logits in predicted.items():
        assert logits.dtype == dtype  # the convolution before ran in half
        upsampled = F.interpolate(logits.float(), size=(SIZE, SIZE), mode='bilinear', align_corners=False)
        assert compared[name].dtype == torch.float32 and torch.equal(compared[name], upsampled), name
    values = [value for key, value in losses.items() if 'loss' in key]
    assert len(values) == 2 and {value.dtype for value in values} == {torch.float32}
    sum(values).backward()
    _, _, half = forward(small(stock=True), dtype)
    assert {logits.dtype for logits in half.values()} == {dtype}
