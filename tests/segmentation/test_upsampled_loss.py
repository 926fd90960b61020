"""The cross-entropy of upsampled logits equals plain torch: upsample, then cross-entropy over all of them."""
import random
from functools import partial

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.models.losses import CrossEntropyLoss, FocalLoss
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from convnext_dense.benchmark.backbone import peak_memory
from convnext_dense.segmentation import upsampled_loss
from convnext_dense.segmentation.float32_loss import Float32FCNHead, is_plain
from convnext_dense.segmentation.upsampled_loss import upsampled_cross_entropy


def plain(logits, labels, ignore_index=-100, align_corners=False):
    """What it must equal, step by step."""
    logits = F.interpolate(logits, size=labels.shape[1:], mode='bilinear', align_corners=align_corners)
    right = (logits.argmax(1) == labels) & (labels != ignore_index)
    return F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction='sum'), right.sum()


def random_case(seed, dtype):
    """Logits and labels of any sizes, larger and smaller ones, with a share of 0 to all pixels ignored."""
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    batch, classes = draw.randint(1, 3), draw.choice((2, 5, 19))
    small, size = ([draw.randint(1, limit) for _ in range(2)] for limit in ((20, 70), (90, 70))[seed % 2])
    logits = 3 * torch.randn(batch, classes, *small, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(classes, (batch, *size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < draw.choice((0, 0.2, 1))] = 255
    if draw.random() < 0.5:
        logits = logits.contiguous(memory_format=torch.channels_last)
    return logits, labels, draw.random() < 0.5


@pytest.mark.parametrize('dtype, tolerance, positions', [(torch.float32, 1e-5, upsampled_loss.POSITIONS),
                                                          (torch.float64, 1e-12, 200)])
def test_values_and_gradients_are_those_of_plain_torch(dtype, tolerance, positions, monkeypatch):
    monkeypatch.setattr(upsampled_loss, 'POSITIONS', positions)
    for seed in range(30):
        logits, labels, align_corners = random_case(seed, dtype)
        results = []
        for function in (plain, upsampled_cross_entropy):
            leaf = logits.clone().requires_grad_()
            total, right = function(leaf, labels, 255, align_corners)
            (0.3 * total).backward()
            results.append((total.detach(), leaf.grad, right))
        (expected, expected_grad, expected_right), (found, grad, right) = results
        assert found.dtype == grad.dtype == dtype and right == expected_right
        assert abs(found - expected) <= tolerance * expected
        assert (grad - expected_grad).abs().max() <= tolerance * expected_grad.abs().max()


def test_autocast_rounds_nothing():
    logits, labels, align_corners = random_case(3, torch.float32)
    expected = upsampled_cross_entropy(logits, labels, 255, align_corners)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(upsampled_cross_entropy(logits, labels, 255, align_corners)[0], expected[0])


def test_less_memory_than_plain_torch():
    logits, labels = torch.randn(4, 50, 32, 32), torch.randint(50, (4, 128, 128))

    def step(function):
        function(logits.requires_grad_(), labels)[0].backward()

    ours, theirs = (peak_memory(partial(step, function), 'cpu') for function in (upsampled_cross_entropy, plain))
    assert ours < 0.5 * theirs


@pytest.mark.parametrize('avg_non_ignore', [False, True])
def test_losses_and_accuracy_of_a_head_are_mmsegs(avg_non_ignore):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 8, 16, 24, generator=generator)]
    for ignored in (0, 8, 61):
        labels = torch.randint(0, 5, (2, 61, 90), generator=generator)
        labels[:, :ignored] = 255
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
        results = []
        for kind in (FCNHead, Float32FCNHead):
            torch.manual_seed(1)
            loss = dict(type='CrossEntropyLoss', loss_weight=0.4, avg_non_ignore=avg_non_ignore, loss_name='loss_x')
            head = kind(in_channels=8, channels=16, num_convs=1, concat_input=False, in_index=0, num_classes=5,
                        dropout_ratio=0.0, norm_cfg=dict(type='BN'), align_corners=False, loss_decode=loss)
            losses = head.loss(maps, samples, {})
            losses['loss_x'].backward()
            results.append(({**losses}, [parameter.grad for parameter in head.parameters()]))
        (expected, expected_grads), (found, grads) = results
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)
        for grad, other in zip(grads, expected_grads, strict=True):
            assert (grad - other).abs().max() <= 1e-5 * max(p.abs().max() for p in expected_grads)


def test_other_losses_are_left_to_mmseg():
    assert is_plain(CrossEntropyLoss())
    for loss in (CrossEntropyLoss(use_sigmoid=True), CrossEntropyLoss(reduction='sum'),
                 CrossEntropyLoss(class_weight=[1.0, 2.0]), FocalLoss(), torch.nn.ModuleList([CrossEntropyLoss()])):
        assert not is_plain(loss)
