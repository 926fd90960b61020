# tests/tools/overfit_coco.py with the heads of Cascade Mask R-CNN.
_base_ = ['../../configs/det/_base_/cascade-mask-rcnn_convnext_fpn_4conv1fc-giou.py', '../tools/overfit_data.py']

width = 64  # of the neck and the heads
bn = dict(type='BN', requires_grad=True)
channels = [32, 64, 128, 192]
heads = [
    dict(type='Float32ConvFCBBoxHead', num_shared_convs=1, num_shared_fcs=1, in_channels=width,
         conv_out_channels=width, fc_out_channels=256, roi_feat_size=7, num_classes=80,
         bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=stds),
         reg_class_agnostic=False, reg_decoded_bbox=True, norm_cfg=bn,
         loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
         loss_bbox=dict(type='GIoULoss', loss_weight=10.0))
    for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])]
stages = [
    dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou,
                       match_low_quality=False, ignore_iof_thr=-1),
         sampler=dict(type='RandomSampler', num=64, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
         mask_size=28, pos_weight=-1, debug=False)
    for iou in (0.5, 0.6, 0.7)]
model = dict(
    backbone=dict(arch=dict(depths=[1, 1, 2, 1], channels=channels), init_cfg=None),
    neck=dict(in_channels=channels, out_channels=width, norm_cfg=bn),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width), bbox_head=heads,
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(in_channels=width, num_convs=2, conv_out_channels=width, norm_cfg=bn)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)), rpn_proposal=dict(nms_pre=300, max_per_img=100), rcnn=stages),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)))
