# A small Mask R-CNN that learns eight COCO images by heart in minutes on one core; the test names the images.
_base_ = [f'../../configs/det/_base_/{name}.py' for name in ('mask-rcnn_convnext_fpn', 'coco_instance', 'runtime')]

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

size = (256, 256)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
resize = dict(type='Resize', scale=size, keep_ratio=True)
train_pipeline = [*load, resize, dict(type='PackDetInputs')]
test_pipeline = [load[0], resize, load[1], dict(
    type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
images = dict(img='train2017/')
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True), batch_sampler=None,
    dataset=dict(data_prefix=images, pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_prefix=images, pipeline=test_pipeline))
test_dataloader = val_dataloader

iterations = 160
train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=0, end=iterations),
]
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0), clip_grad=dict(max_norm=5.0))
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=iterations, save_best=None))
log_processor = dict(window_size=10, by_epoch=False)
randomness = dict(seed=0)
