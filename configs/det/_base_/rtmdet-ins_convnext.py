# RTMDet with masks: the head of mmdet's rtmdet-ins_l_8xb32-300e_coco.py on rtmdet_convnext.py.
_base_ = './rtmdet_convnext.py'

model = dict(
    bbox_head=dict(
        _delete_=True,
        type='Float32RTMDetInsSepBNHead',
        num_classes=80,
        in_channels=256,
        stacked_convs=2,
        feat_channels=256,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_mask=dict(type='DiceLoss', loss_weight=2.0, eps=5e-6, reduction='mean'),
        share_conv=True,
        pred_kernel_size=1,
        norm_cfg=dict(type='GN', num_groups=32),
        act_cfg=dict(type='SiLU', inplace=True)),
    test_cfg=dict(
        nms_pre=1000, score_thr=0.05, nms=dict(iou_threshold=0.6), max_per_img=100, mask_thr_binary=0.5))
