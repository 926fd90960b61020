"""RTMDet's masks have the size of the image, and its boxes are scaled as mmdet scales them."""
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

ORIGINAL, RESIZED, PADDED = (593, 600), (127, 128), (128, 128)  # 593 x 600 resized to fit 128 x 128


def predict(kind: str) -> InstanceData:
    """One object in the lower right quarter of an image."""
    init_default_scope('mmdet')
    head = MODELS.build(dict(
        type=kind, num_classes=1, in_channels=8, feat_channels=8, stacked_convs=1, norm_cfg=dict(type='BN'),
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8]),
        loss_cls=dict(type='QualityFocalLoss'), loss_bbox=dict(type='GIoULoss'), loss_mask=dict(type='DiceLoss')))
    logits = torch.full((1, PADDED[0] // 8, PADDED[1] // 8), -1.0)
    logits[:, 8:, 8:] = 1
    head._mask_predict_by_feat_single = lambda *args: logits
    results = InstanceData(bboxes=torch.tensor([[64.0, 63.0, 128.0, 127.0]]), scores=torch.ones(1),
                           labels=torch.zeros(1, dtype=torch.long), kernels=torch.zeros(1, 1), priors=torch.zeros(1, 4))
    meta = dict(ori_shape=ORIGINAL, img_shape=RESIZED,
                scale_factor=(RESIZED[1] / ORIGINAL[1], RESIZED[0] / ORIGINAL[0]))
    cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.6), max_per_img=10, mask_thr_binary=0.5)
    return head._bbox_mask_post_process(results, None, cfg, rescale=True, img_meta=meta)


def test_masks_have_the_size_of_the_image():
    ours, stock = predict('Float32RTMDetInsSepBNHead'), predict('RTMDetInsSepBNHead')
    assert ours.masks.shape[1:] == ORIGINAL
    assert stock.masks.shape[1:] != ORIGINAL  # upstream has fixed it otherwise: ours is not needed any more
    torch.testing.assert_close(ours.bboxes, stock.bboxes, rtol=1e-5, atol=1e-3)
    assert ours.bboxes[0].tolist() == pytest.approx([300, 63 / 127 * 593, 600, 593], abs=1e-2)
    rows, columns = ours.masks[0].any(1).nonzero(), ours.masks[0].any(0).nonzero()
    assert abs(rows.min() - 64 / 127 * 593) < 5 and abs(columns.min() - 300) < 5 and columns.max() == 599
