# The smallest Mask R-CNN that goes through every line: images of 64 pixels, two epochs, seconds on a CPU.
_base_ = [f'../../configs/det/_base_/{name}.py' for name in ('mask-rcnn_convnext_fpn', 'coco_instance', 'runtime')]

width = 16  # of the neck and the heads
bn = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]), init_cfg=None),
    neck=dict(in_channels=[8, 16, 24, 32], out_channels=width, norm_cfg=bn),
    rpn_head=dict(in_channels=width, feat_channels=width, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width, fc_out_channels=width, num_classes=3),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(in_channels=width, num_convs=1, conv_out_channels=width, num_classes=3)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)), rpn_proposal=dict(nms_pre=100, max_per_img=50),
        rcnn=dict(sampler=dict(num=32))),
    # every score counts, so that a hardly trained model predicts something
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50), rcnn=dict(score_thr=0.0, max_per_img=5)))

data_root = 'data/shapes/coco/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
dataset = dict(type='ShapesDetDataset', data_root=data_root)
train_dataloader = dict(num_workers=0, dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=10)]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=5.0))
default_hooks = dict(logger=dict(interval=1))
log_processor = dict(window_size=1)
randomness = dict(seed=0)
