"""The plain graph of segmentors: mmseg's own scores, and pooling that holds for any size."""
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from tool_runs import CONFIGS
from torch import nn

from convnext_dense.config import load_config
from convnext_dense.errors import UserError
from convnext_dense.segmentation.plain import MatrixPool, PlainSegmentor


@pytest.fixture(scope='module')
def segmentor():
    cfg = load_config(str(CONFIGS['seg']))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(cfg.model).eval()


@pytest.mark.parametrize('shape', [(2, 3, 96, 128), (1, 3, 75, 201)])
def test_scores_are_mmsegs(segmentor, shape):
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    with torch.no_grad():
        found, = PlainSegmentor(segmentor).eval()(images)
        data = segmentor.data_preprocessor(dict(inputs=list(images.flip(1))))  # it takes BGR
        expected = segmentor.decode_head(segmentor.extract_feat(data['inputs']))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('bins', [1, 2, 3, 6, (2, 5)])
@pytest.mark.parametrize('size', [(3, 4), (6, 12), (7, 11), (1, 2)])
def test_pooling_is_torchs(bins, size):
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(MatrixPool(bins)(x), nn.AdaptiveAvgPool2d(bins)(x), rtol=1e-12, atol=0)


def test_what_cannot_be_exported_is_named(segmentor):
    class Other(type(segmentor)):
        def encode_decode(self, inputs, batch_img_metas):
            return inputs

    segmentor.__class__, own = Other, type(segmentor)
    try:
        with pytest.raises(UserError, match='Other cannot be exported: expected EncoderDecoder'):
            PlainSegmentor(segmentor)
    finally:
        segmentor.__class__ = own
