# RTMDet with masks on ConvNeXt-atto, small enough to learn eight COCO images by heart in minutes on one core.
_base_ = ['../../configs/det/_base_/rtmdet-ins_convnext.py', './overfit_data.py']

width = 64
model = dict(
    # zeros have no variance, which LayerNorm divides by; see mask-rcnn_convnext_fpn_small.py
    data_preprocessor=dict(pad_value=1.0, pad_mask=True, pad_size_divisor=32),
    backbone=_base_.atto,
    neck=dict(in_channels=[80, 160, 320], out_channels=width, num_csp_blocks=1, norm_cfg=dict(num_groups=8)),
    bbox_head=dict(in_channels=width, feat_channels=width, norm_cfg=dict(num_groups=8)))
