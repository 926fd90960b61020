# The demo's detector, for a CPU: Mask R-CNN on the generated shapes (docs/shapes.md), from random weights.
_base_ = ['_base_/mask-rcnn_convnext_fpn.py', '_base_/coco_instance.py', '_base_/runtime.py']

classes = 3
bn = dict(type='BN', requires_grad=True)  # in neck and mask head; training from random weights needs it
width = 64  # of the neck and the heads, 256 as published
# The official small initial weights suit 300 epochs; with these, blocks contribute from the first iteration on.
init = dict(_delete_=True, type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in', nonlinearity='linear',
            distribution='normal')
model = dict(
    backbone=dict(arch='atto', init_cfg=init),
    neck=dict(in_channels=[40, 80, 160, 320], out_channels=width, num_outs=4, norm_cfg=bn),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        # anchors of 4 x stride = 16, 32, 64 and 128 pixels; shapes are about 20 to 65 wide in images of 128
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width, fc_out_channels=4 * width, num_classes=classes),
        mask_roi_extractor=dict(out_channels=width, roi_layer=dict(sampling_ratio=1)),
        mask_head=dict(in_channels=width, num_convs=2, conv_out_channels=width, num_classes=classes, norm_cfg=bn)),
    # a tenth of the published proposals and samples, since an image has five shapes at most
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=30)))

data_root = 'data/shapes/coco/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
dataset = dict(type='ShapesDetDataset', data_root=data_root)
train_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False,
                        dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(batch_size=10, num_workers=0, persistent_workers=False,
                      dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=4, eta_min=1e-5, begin=0, end=4, by_epoch=True, convert_to_iter_based=True),
]
optim_wrapper = dict(
    type='OptimWrapper',
    # a high rate on purpose, as in the segmenter's recipe
    optimizer=dict(type='AdamW', lr=8e-3, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=5.0))
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
log_processor = dict(window_size=10)
randomness = dict(seed=0)
