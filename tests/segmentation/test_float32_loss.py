"""Losses of our decode heads under mixed precision are those of float32 logits, as mmseg 0 computed them."""
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead, UPerHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from convnext_dense.segmentation.float32_loss import Float32FCNHead, Float32Loss, cross_entropy_at_once
from convnext_dense.segmentation.upsampled_loss import upsampled_cross_entropy

FCN = dict(in_channels=8, channels=16, num_convs=1, concat_input=False, in_index=0)
UPER = dict(in_channels=[8, 16], in_index=[0, 1], pool_scales=(1, 2), channels=16)
COMMON = dict(num_classes=5, dropout_ratio=0.0, norm_cfg=dict(type='BN'), align_corners=False,
              loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4))


class Float32UPerHead(Float32Loss, UPerHead):
    """What a head other than FCN becomes."""


HEADS = [(FCNHead, Float32FCNHead, FCN), (UPerHead, Float32UPerHead, UPER)]


@pytest.fixture(autouse=True)
def mmseg_scope():
    init_default_scope('mmseg')


def batch(scale: float) -> tuple[list[torch.Tensor], list[SegDataSample]]:
    """Maps of two strides for two 64x96 images, and labels with some ignored pixels."""
    generator = torch.Generator().manual_seed(0)
    maps = [scale * torch.randn(2, 8, 16, 24, generator=generator), torch.randn(2, 16, 8, 12, generator=generator)]
    labels = torch.randint(0, 5, (2, 1, 64, 96), generator=generator)
    labels[:, :, :8] = 255
    samples = [SegDataSample() for _ in range(2)]
    for sample, label in zip(samples, labels, strict=True):
        sample.gt_sem_seg = PixelData(data=label)
    return maps, samples


def build(cls, kwargs):
    torch.manual_seed(0)
    head = cls(**kwargs, **COMMON)
    torch.nn.init.normal_(head.conv_seg.weight)  # the usual initialisation gives logits near 0
    return head


@pytest.mark.parametrize('stock, ours, kwargs', HEADS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_loss_is_that_of_float32_logits(stock, ours, kwargs, dtype):
    """The same half-precision logits, upsampled and compared by plain torch in float32; mmseg's own differ."""
    maps, samples = batch(scale=30.0)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    found, grads = {}, {}
    for cls in (stock, ours):
        head = build(cls, kwargs)
        with torch.autocast('cpu', dtype):
            logits = head(maps).detach().requires_grad_()
            assert logits.dtype == dtype
            found[cls] = head.loss_by_feat(logits, samples)
        grads[cls], = torch.autograd.grad(1000 * found[cls]['loss_ce'], logits)
    upsampled = F.interpolate(logits.float(), size=(64, 96), mode='bilinear', align_corners=False)
    # mmseg divides by the number of all pixels, ignored ones included
    expected = 0.4 * F.cross_entropy(upsampled, labels, ignore_index=255, reduction='sum') / labels.numel()
    torch.testing.assert_close(found[ours]['loss_ce'], expected, rtol=1e-6, atol=0)
    expected_grad, = torch.autograd.grad(1000 * expected, logits)
    errors = {cls: (grad.float() - expected_grad.float()).abs().max() for cls, grad in grads.items()}
    assert errors[ours] < 1e-5 * expected_grad.abs().max() < 0.1 * errors[stock]
    correct = (upsampled.argmax(1) == labels)[labels != 255].float().mean() * 100
    torch.testing.assert_close(found[ours]['acc_seg'].squeeze(), correct, rtol=1e-6, atol=0)


@pytest.mark.parametrize('stock, ours, kwargs', HEADS)
def test_float32_results_and_state_dict_are_the_heads_own(stock, ours, kwargs):
    maps, samples = batch(scale=1.0)
    heads = [build(cls, kwargs) for cls in (stock, ours)]
    first, second = (head.loss(maps, samples, {}) for head in heads)
    torch.testing.assert_close(second, first, rtol=1e-6, atol=0)
    states = [head.state_dict() for head in heads]
    assert {k: v.shape for k, v in states[0].items()} == {k: v.shape for k, v in states[1].items()}


def test_a_stock_config_gets_it_by_the_type_name():
    head = MODELS.build(dict(type='Float32FCNHead', **FCN, **COMMON))
    assert isinstance(head, Float32FCNHead)


@pytest.mark.parametrize('align_corners', [False, True])
def test_both_sums_of_cross_entropies_agree(align_corners):
    """By rows, as on a CPU, and of upsampled logits in memory, as on a GPU; values, counts and gradients."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 6, 7, generator=generator).requires_grad_()
    labels = torch.randint(0, 5, (2, 24, 31), generator=generator)
    labels[:, 3:9] = 255
    found = []
    for sums in (upsampled_cross_entropy, cross_entropy_at_once):
        total, right = sums(logits, labels, 255, align_corners)
        found.append((total.detach(), torch.autograd.grad(total, logits)[0], right))
    assert found[0][2] == found[1][2] > 0
    torch.testing.assert_close(*(values[:2] for values in found), rtol=1e-5, atol=1e-5)
