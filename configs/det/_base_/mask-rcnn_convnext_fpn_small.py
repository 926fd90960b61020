# A narrow Mask R-CNN and its schedule for small data from random weights, also on a CPU; tools/new_project.py uses it.
# What differs from the published recipe was measured on Penn-Fudan (docs/your-own-data.md).
_base_ = './mask-rcnn_convnext_fpn.py'

bn = dict(type='SyncBN', requires_grad=True)  # in neck and mask head; training from random weights needs it
width = 64  # of the neck and the heads, 256 as published
model = dict(
    # Padding must not be zero. A region of zeros gives equal channels, which LayerNorm divides by sqrt(1e-6) in every
    # block: gradients overflowed float32 in the first iterations.
    data_preprocessor=dict(pad_value=1.0),
    backbone=dict(
        arch='atto',
        # The official small initial weights suit 300 epochs; with these, blocks contribute from the start.
        init_cfg=dict(_delete_=True, type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in',
                      nonlinearity='linear', distribution='normal')),
    neck=dict(in_channels=[40, 80, 160, 320], out_channels=width, norm_cfg=bn),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(in_channels=width, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=width, roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(in_channels=width, conv_out_channels=width, norm_cfg=bn)),
    # a quarter of the published proposals and an eighth of the samples: images are small and have few objects
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=250),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=250)))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.99), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5.0))
auto_scale_lr = dict(enable=False, base_batch_size=4)
randomness = dict(seed=0)
