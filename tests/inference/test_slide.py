"""Several sliding windows in one forward pass give what mmseg's own loop over windows gives."""
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmseg.models import EncoderDecoder

from convnext_dense.config import load_config
from convnext_dense.errors import UserError
from convnext_dense.inference.protocols import use_slide


@pytest.fixture(scope='module')
def segmentor(tiny):
    """A segmentor with random weights that slides by the test's settings."""
    cfg = load_config(str(tiny['seg']))
    use_slide(cfg, 48, 32)
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model).eval()
    assert type(model) is not EncoderDecoder and model.test_cfg.mode == 'slide'
    for parameter in model.decode_head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize('windows', [None, 1, 2, 3, 100])
@pytest.mark.parametrize('batch, height, width, crop, stride', [
    (1, 96, 128, (48, 48), (32, 32)),   # two and four windows that fit
    (1, 97, 131, (48, 48), (32, 32)),   # the last ones overlap more
    (1, 40, 130, (48, 48), (32, 32)),   # lower than a window
    (2, 40, 32, (48, 48), (32, 32)),    # smaller than a window, two images
    (3, 70, 90, (48, 32), (31, 17)),    # oblong windows, three images
])
@torch.no_grad()
def test_equal_to_mmseg(segmentor, windows, batch, height, width, crop, stride):
    torch.manual_seed(height)
    images = torch.randn(batch, 3, height, width)
    segmentor.test_cfg = type(segmentor.test_cfg)(mode='slide', crop_size=crop, stride=stride, windows=windows)
    metas = [dict(ori_shape=(height, width), img_shape=(height, width)) for _ in range(batch)]
    expected = EncoderDecoder.slide_inference(segmentor, images, [dict(meta) for meta in metas])
    found = segmentor.slide_inference(images, metas)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    if windows == 1:
        assert torch.equal(found, expected)
    assert metas == [dict(ori_shape=(height, width), img_shape=(height, width))] * batch


@torch.no_grad()
def test_windows_go_together(segmentor, monkeypatch):
    sizes = []
    encode_decode = segmentor.encode_decode
    monkeypatch.setattr(segmentor, 'encode_decode', lambda x, metas: sizes.append(len(x)) or encode_decode(x, metas))
    segmentor.test_cfg = type(segmentor.test_cfg)(mode='slide', crop_size=(48, 48), stride=(32, 32), windows=4)
    metas = [dict(ori_shape=(112, 80), img_shape=(112, 80))] * 2
    segmentor.slide_inference(torch.randn(2, 3, 112, 80), metas)  # 3 x 2 windows of two images
    assert sizes == [8, 4]


def test_flag_changes_the_config(tiny):
    cfg = load_config('seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py')
    published = dict(cfg.model.test_cfg)
    use_slide(cfg)
    assert dict(cfg.model.test_cfg) == published and published['stride'] == (341, 341)
    assert cfg.model.type == 'FastEncoderDecoder'
    use_slide(cfg, 640, 426)
    assert (cfg.model.test_cfg.crop_size, cfg.model.test_cfg.stride) == ((640, 640), (426, 426))
    for size, stride in ((64, 65), (64, 0), (0, 0)):
        with pytest.raises(UserError, match='stride from 1 to the size'):
            use_slide(cfg, size, stride)
    with pytest.raises(UserError, match='give --slide SIZE STRIDE'):
        use_slide(load_config(str(tiny['seg'])))
    with pytest.raises(UserError, match='--slide is for segmentors'):
        use_slide(load_config(str(tiny['det'])))
