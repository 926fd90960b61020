"""Label maps without full-size scores are those of mmseg's own predictions."""
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from convnext_dense.benchmark.backbone import peak_memory
from convnext_dense.segmentation import encoder_decoder


class Features(torch.nn.Module):
    """Stands in for a backbone: one map at a quarter of the image's size."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 4, 4)

    def forward(self, x):
        return [self.conv(x)]


def build(kind, classes, align_corners=False, **head):
    MODELS.register_module(name='TestFeatures', module=Features, force=True)
    torch.manual_seed(0)
    head = dict(type='FCNHead', in_channels=8, in_index=0, channels=8, num_convs=0, kernel_size=1, concat_input=False,
                num_classes=classes, align_corners=align_corners, norm_cfg=dict(type='BN')) | head
    model = MODELS.build(dict(type=kind, backbone=dict(type='TestFeatures'), decode_head=head,
                              test_cfg=ConfigDict(mode='whole'))).eval()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    return model


def pair(*args, **kwargs):
    """mmseg's model, and ours without scores, with equal weights."""
    stock, ours = build('EncoderDecoder', *args, **kwargs), build('FastEncoderDecoder', *args, **kwargs)
    assert type(stock) is EncoderDecoder
    ours.load_state_dict(stock.state_dict())
    ours.labels_only = True
    return stock, ours


def samples_of(*metas):
    return [SegDataSample(metainfo=meta) for meta in metas]


CASES = [  # classes, align_corners, size of the batch's images, mode, metas
    (150, False, (64, 96), {}, [dict(ori_shape=(64, 96)), dict(ori_shape=(101, 57))]),
    (33, True, (48, 80), {}, [dict(ori_shape=(97, 160), flip=True, flip_direction='horizontal')]),
    (32, False, (64, 64), {}, [dict(ori_shape=(60, 50), img_padding_size=[0, 14, 0, 4]),
                               dict(ori_shape=(120, 99), padding_size=[3, 10, 1, 2])]),
    (5, False, (70, 90), dict(mode='slide', crop_size=(48, 32), stride=(31, 17)),
     [dict(ori_shape=(140, 171)), dict(ori_shape=(70, 90), flip=True, flip_direction='vertical')]),
    (70, False, (48, 48), dict(mode='slide', crop_size=(48, 48), stride=(32, 32), windows=3),
     [dict(ori_shape=(33, 99))]),
]


@pytest.mark.parametrize('classes, align_corners, size, mode, metas', CASES)
@torch.no_grad()
def test_labels_are_mmsegs(classes, align_corners, size, mode, metas):
    """The same upsampling in another memory layout and order of sums: labels differ at most where scores are tied."""
    stock, ours = pair(classes, align_corners)
    for model in (stock, ours):
        model.test_cfg = ConfigDict(mode or dict(mode='whole'))
    metas = [dict(img_shape=size, pad_shape=size) | meta for meta in metas]
    images = torch.randn(len(metas), 3, *size)
    expected, found = (model.predict(images, samples_of(*metas)) for model in (stock, ours))
    for one, other in zip(expected, found, strict=True):
        assert 'seg_logits' not in other
        assert other.pred_sem_seg.data.shape == one.pred_sem_seg.data.shape == (1, *one.metainfo['ori_shape'])
        assert other.pred_sem_seg.data.dtype == one.pred_sem_seg.data.dtype
        assert len(np.unique(one.pred_sem_seg.data)) > 3
        top, second = one.seg_logits.data.topk(2, dim=0).values
        clear = (top - second > 1e-4)[None]
        assert clear.float().mean() > 0.98
        assert torch.equal(other.pred_sem_seg.data[clear], one.pred_sem_seg.data[clear])


@torch.no_grad()
def test_scores_are_kept_unless_switched_off():
    stock, ours = pair(7)
    ours.labels_only = False
    images, meta = torch.randn(1, 3, 32, 32), dict(ori_shape=(50, 40), img_shape=(32, 32))
    expected, found = (model.predict(images, samples_of(meta))[0] for model in (stock, ours))
    assert torch.equal(found.seg_logits.data, expected.seg_logits.data)


@torch.no_grad()
def test_heads_with_scores_of_their_own_are_left_to_mmseg(monkeypatch):
    """Binary heads compare with a threshold; a head that computes its scores otherwise is asked for them."""
    stock, ours = pair(2, out_channels=1, threshold=0.3)
    images, meta = torch.randn(1, 3, 32, 32), dict(ori_shape=(50, 40), img_shape=(32, 32))
    expected, found = (model.predict(images, samples_of(meta))[0].pred_sem_seg.data for model in (stock, ours))
    assert torch.equal(found, expected) and 0.1 < expected.float().mean() < 0.9
    _, ours = pair(5)

    class Other(type(ours.decode_head)):
        def predict_by_feat(self, scores, metas):
            return -super().predict_by_feat(scores, metas)

    ours.decode_head.__class__ = Other
    found = ours.predict(images, samples_of(meta))[0]
    assert torch.equal(found.pred_sem_seg.data, found.seg_logits.data.argmax(0, keepdim=True))


@torch.no_grad()
def test_memory_peak_is_a_few_classes():
    """150 classes of an image with 384x384 pixels are 88 MB, of which mmseg holds several copies."""
    stock, ours = pair(150)
    images, meta = torch.randn(1, 3, 384, 384), dict(ori_shape=(384, 384), img_shape=(384, 384))
    for mode in (dict(mode='whole'), dict(mode='slide', crop_size=(256, 256), stride=(128, 128))):
        peaks = []
        for model in (stock, ours):
            model.test_cfg = ConfigDict(mode)
            peaks.append(peak_memory(lambda model=model: model.predict(images, samples_of(meta)), 'cpu'))
        full = 4 * 150 * 384 ** 2
        assert peaks[0] > 1.9 * full and peaks[1] < 1.1 * full, (mode, [peak / full for peak in peaks])


def test_classes_go_in_blocks(monkeypatch):
    """Any number of classes together gives the same labels."""
    _, ours = pair(20)
    images, meta = torch.randn(1, 3, 32, 32), dict(ori_shape=(50, 40), img_shape=(32, 32))
    found = []
    for together in (1, 7, 20, 32):
        monkeypatch.setattr(encoder_decoder, 'CLASSES_TOGETHER', together)
        with torch.no_grad():
            found.append(ours.predict(images, samples_of(meta))[0].pred_sem_seg.data)
    assert all(torch.equal(labels, found[0]) for labels in found)
