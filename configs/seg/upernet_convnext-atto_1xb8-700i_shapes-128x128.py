# The demo's segmenter, for a CPU: UPerNet on the generated shapes (docs/shapes.md), from random weights.
_base_ = ['_base_/upernet_convnext.py', '_base_/ade20k_512x512.py', '_base_/runtime.py']

classes = 4  # background is one of them
bn = dict(type='BN', requires_grad=True)
# The official small initial weights suit 300 epochs; with these, blocks contribute from the first iteration on.
init = dict(_delete_=True, type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in', nonlinearity='linear',
            distribution='normal')
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(arch='atto', init_cfg=init),
    decode_head=dict(
        in_channels=[40, 80, 160, 320], channels=64, dropout_ratio=0.0, num_classes=classes, norm_cfg=bn),
    auxiliary_head=dict(in_channels=160, channels=64, dropout_ratio=0.0, num_classes=classes, norm_cfg=bn),
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
train_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False,
                        dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(batch_size=10, num_workers=0, persistent_workers=False,
                      dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(type='IterBasedTrainLoop', max_iters=700, val_interval=100)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=0, end=700),
]
optim_wrapper = dict(
    type='OptimWrapper',
    # a high rate on purpose: measured at 5e-4 to 2e-3, 300 to 500 iterations do not start to tell the shapes apart
    optimizer=dict(type='AdamW', lr=1.2e-2, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=5.0))
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=100, max_keep_ckpts=1))
log_processor = dict(window_size=10)
randomness = dict(seed=0)
