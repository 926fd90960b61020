# A small Mask R-CNN that learns eight COCO images by heart in minutes on one core; the test names the images.
_base_ = ['../../configs/det/_base_/mask-rcnn_convnext_fpn.py', './overfit_data.py']

width = 64  # of the neck and the heads
bn = dict(type='BN', requires_grad=True)
channels = [32, 64, 128, 192]
model = dict(
    backbone=dict(arch=dict(depths=[1, 1, 2, 1], channels=channels), init_cfg=None),
    neck=dict(in_channels=channels, out_channels=width, norm_cfg=bn),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(in_channels=width, num_convs=2, conv_out_channels=width, norm_cfg=bn)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)), rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)))
