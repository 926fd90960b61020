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


def forward(model: torch.nn.Module, dtype: torch.dtype) -> tuple[dict, dict, torch.Tensor]:
    """Losses, the logits that each head predicts, and the labels."""
    generator = torch.Generator().manual_seed(0)
    samples = [SegDataSample() for _ in range(2)]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.randint(0, CLASSES, (1, SIZE, SIZE), generator=generator))
    images = [torch.randint(0, 256, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8) for _ in samples]
    predicted = {}
    for name in ('decode', 'aux'):
        head = model.decode_head if name == 'decode' else model.auxiliary_head
        head.conv_seg.register_forward_hook(lambda _, args, out, name=name: predicted.update({name: out}))
    batch = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    with torch.autocast('cpu', dtype):
        losses = model(**batch, mode='loss')
    return losses, predicted, torch.cat([sample.gt_sem_seg.data for sample in batch['data_samples']])


def errors(model: torch.nn.Module, dtype: torch.dtype) -> dict[str, float]:
    """By head, how far the gradients of the logits are from those of losses of logits upsampled in float32."""
    losses, predicted, labels = forward(model, dtype)
    found = {}
    for name, weight in (('decode', 1.0), ('aux', 0.4)):
        logits = predicted[name]
        assert logits.dtype == dtype  # the convolution before ran in half
        leaf = logits.detach().requires_grad_()
        upsampled = F.interpolate(leaf.float(), size=(SIZE, SIZE), mode='bilinear', align_corners=False)
        expected = weight * F.cross_entropy(upsampled, labels)
        assert losses[f'{name}.loss_ce'].dtype == torch.float32
        torch.testing.assert_close(losses[f'{name}.loss_ce'], expected, rtol=1e-3, atol=0)
        # times a number that keeps the gradients of float16 normal
        exact, = torch.autograd.grad(1000 * expected, leaf)
        grad, = torch.autograd.grad(1000 * losses[f'{name}.loss_ce'], logits, retain_graph=True)
        found[name] = ((grad.float() - exact.float()).norm() / exact.float().norm()).item()
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    return found


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_losses_of_the_recipe_are_float32(dtype):
    ours, stock = (errors(small(stock), dtype) for stock in (False, True))
    for name in ours:
        assert ours[name] < 0.1 * torch.finfo(dtype).eps and stock[name] > 2 * ours[name], name
