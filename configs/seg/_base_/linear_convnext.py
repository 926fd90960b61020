# Linear evaluation of frozen features, as DINOv3 publishes it: the map of the last stage (stride 32) after the final
# norm, dropout, batch norm and a 1x1 convolution; sliding windows of 512 with stride 341.
model = dict(
    type='FastEncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512)),
    backbone=dict(
        type='ConvNeXt',
        layer_scale_init_value=1.0,
        out_indices=(3, ),
        frozen_stages=4,
        frozen_norms=True,
        channels_last=True,
        init_cfg=dict(type='Pretrained', final_norm=True)),
    decode_head=dict(
        type='LinearHead',
        in_index=0,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
