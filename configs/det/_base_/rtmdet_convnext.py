# RTMDet with the neck and head of RTMDet-L (mmdet's rtmdet_l_8xb32-300e_coco.py); group norm instead of SyncBN, as in
# mmdet's RTMDet on ConvNeXt-B (rtmdet_l_convnext_b_4xb32-100e_coco.py).
width = 256
layers = dict(norm_cfg=dict(type='GN', num_groups=32), act_cfg=dict(type='SiLU', inplace=True))
model = dict(
    type='RTMDet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        type='ConvNeXt',
        layer_scale_init_value=1.0,
        out_indices=(1, 2, 3),
        channels_last=True,
        init_cfg=dict(type='Pretrained')),
    neck=dict(type='CSPNeXtPAFPN', out_channels=width, num_csp_blocks=3, expand_ratio=0.5, **layers),
    bbox_head=dict(
        type='Float32RTMDetSepBNHead',
        num_classes=80,
        in_channels=width,
        stacked_convs=2,
        feat_channels=width,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        with_objectness=False,
        exp_on_reg=True,
        share_conv=True,
        pred_kernel_size=1,
        **layers),
    train_cfg=dict(
        assigner=dict(type='DynamicSoftLabelAssigner', topk=13), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(
        nms_pre=30000, min_bbox_size=0, score_thr=0.001, nms=dict(type='nms', iou_threshold=0.65), max_per_img=300))
