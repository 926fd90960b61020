"""RoI features under mixed precision: levels, boxes and values of float32."""
import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from torchvision.ops import roi_align

from convnext_dense.mm import transfer

STRIDES = (4, 8, 16, 32)
HALF = [torch.float16, torch.bfloat16]


def build(name: str = 'Float32RoIExtractor', channels: int = 1, size: int = 7) -> SingleRoIExtractor:
    return MODELS.build(dict(type=name, out_channels=channels, featmap_strides=list(STRIDES),
                             roi_layer=dict(type='RoIAlign', output_size=size, sampling_ratio=0)))


def random_rois(count: int, image: int, longest: int, seed: int = 0) -> torch.Tensor:
    """(count, 5) RoIs of two images, sides from 4 to ``longest`` px, log-uniform."""
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(np.log(4), np.log(longest), (count, 2)))
    corners = rng.uniform(0, 1, (count, 2)) * (image - sides)
    rois = np.concatenate([rng.integers(0, 2, (count, 1)), corners, corners + sides], 1)
    return torch.from_numpy(rois).float()


def maps(image: int, channels: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, image // s, image // s, generator=generator).to(dtype) for s in STRIDES]


def levels(rois: torch.Tensor) -> np.ndarray:
    """FPN's rule (Lin et al. 2017, equation 1, with canonical size 224 at stride 16) in float64."""
    x1, y1, x2, y2 = rois.double().numpy()[:, 1:].T
    return np.clip(np.floor(4 + np.log2(np.sqrt((x2 - x1) * (y2 - y1)) / 224)) - 2, 0, 3).astype(int)


def reaching_roi_align(extractor: SingleRoIExtractor, feats, rois) -> tuple[np.ndarray, torch.Tensor]:
    """(n,) levels and (n, 5) boxes with which RoIAlign is called, in the order of ``rois``."""
    calls, chosen = [], []
    for level, layer in enumerate(extractor.roi_layers):
        layer.register_forward_pre_hook(lambda _, args, level=level: calls.append((level, *args)))
    map_levels = extractor.map_roi_levels
    extractor.map_roi_levels = lambda *args: chosen.append(map_levels(*args)) or chosen[-1]
    extractor(feats, rois)
    boxes = torch.zeros_like(rois).to(calls[0][2].dtype)
    for level, feat, reached in calls:
        assert feat.dtype == reached.dtype
        own = chosen[0] == level
        boxes[own] = reached[own] if len(reached) == len(rois) else reached  # ours pools all, outside other maps
    return chosen[0].numpy(), boxes


@pytest.mark.parametrize('dtype', HALF)
def test_levels_and_boxes_are_those_of_float32(dtype):
    """4000 RoIs up to 2000 px: FPN's rule in float64, and boxes equal to the bit; mmdet's extractor changes both."""
    rois = random_rois(4000, 2048, 2000)
    feats = maps(2048, 1, dtype)
    with torch.autocast('cpu', dtype):
        found, boxes = reaching_roi_align(build(), feats, rois)
        stock, rounded = reaching_roi_align(build('SingleRoIExtractor'), feats, rois)
    assert np.array_equal(found, levels(rois))
    assert boxes.dtype == torch.float32 and torch.equal(boxes, rois)
    assert rounded.dtype == dtype and not torch.equal(rounded.float(), rois)
    if dtype == torch.float16:
        side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt().numpy()
        overflowing = (side > 256) & (side < 448)
        # rounding their corners brings a few long and thin ones below 256 px
        assert overflowing.sum() > 100 and (stock[overflowing] == 3).mean() > 0.98
        assert (found[overflowing] == 2).all()


@pytest.mark.parametrize('dtype', [*HALF, torch.float32])
def test_features_are_those_of_float32_maps_and_boxes(dtype):
    """Values and gradients: torchvision's RoIAlign in float32 on each RoI's level, rounded once at the end."""
    rois, channels = random_rois(60, 1024, 1000), 3
    feats = [feat.requires_grad_() for feat in maps(1024, channels, dtype)]
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        pooled = build(channels=channels)(feats, rois)
    weight = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    grads = torch.autograd.grad((pooled * weight).sum(), feats)

    exact = [feat.detach().float().requires_grad_() for feat in feats]
    expected = torch.stack([roi_align(exact[level], roi[None], 7, 1 / STRIDES[level], 0, aligned=True)[0]
                            for level, roi in zip(levels(rois), rois, strict=True)])
    assert pooled.dtype == dtype
    assert torch.equal(pooled.detach(), expected.detach().to(dtype))
    for grad, reference in zip(grads, torch.autograd.grad((expected * weight.float()).sum(), exact), strict=True):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad, reference.to(dtype))


@pytest.mark.parametrize('waits', [True, False], ids=['as on a GPU', 'as on a CPU'])
def test_float32_is_mmdets_extractor(waits, monkeypatch):
    monkeypatch.setattr(transfer, 'host_would_wait', lambda tensor: waits)
    rois, feats = random_rois(60, 1024, 1000), maps(1024, 3, torch.float32)
    ours, stock = build(channels=3), build('SingleRoIExtractor', channels=3)
    assert torch.equal(ours(feats, rois), stock(feats, rois))
    assert torch.equal(ours(feats, rois, roi_scale_factor=1.3), stock(feats, rois, roi_scale_factor=1.3))
    assert ours(feats, rois[:0]).shape == (0, 3, 7, 7)
    assert ours.state_dict().keys() == stock.state_dict().keys() == set()


@torch.no_grad()
@pytest.mark.parametrize('longest', [30, 1000])
def test_without_gradients_it_is_mmdets_too(longest):
    """Also where every RoI is of the first level."""
    rois, feats = random_rois(60, 1024, longest), maps(1024, 3, torch.float32)
    assert len(set(levels(rois))) == (1 if longest == 30 else 4)
    ours, stock = build(channels=3), build('SingleRoIExtractor', channels=3)
    for factor in (None, 1.3):
        assert torch.equal(ours(feats, rois, factor), stock(feats, rois, factor))
        feats_last = [feat.contiguous(memory_format=torch.channels_last) for feat in feats]
        torch.testing.assert_close(ours(feats_last, rois, factor), stock(feats, rois, factor), rtol=0, atol=1e-5)
    assert ours(feats, rois[:0]).shape == (0, 3, 7, 7)
