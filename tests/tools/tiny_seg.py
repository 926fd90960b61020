# The smallest UPerNet that goes through every line: images of 64 pixels, eight iterations, seconds on a CPU.
_base_ = [f'../../configs/seg/_base_/{name}.py' for name in ('upernet_convnext', 'ade20k_512x512', 'runtime')]

bn = dict(type='BN', requires_grad=True)
head = dict(channels=16, dropout_ratio=0.0, num_classes=4, norm_cfg=bn)
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]), init_cfg=None),
    decode_head=dict(in_channels=[8, 16, 24, 32], **head),
    auxiliary_head=dict(in_channels=24, **head),
    test_cfg=dict(_delete_=True, mode='whole'))

data_root = 'data/shapes/ade/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
dataset = dict(type='ShapesSegDataset', data_root=data_root)
train_dataloader = dict(num_workers=0, dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(type='IterBasedTrainLoop', max_iters=8, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=10)]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=5.0))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4))
log_processor = dict(window_size=1)
randomness = dict(seed=0)
