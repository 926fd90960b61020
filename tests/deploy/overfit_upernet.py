# UPerNet, small enough to learn eight ADE20K images by heart in a minute on one core.
_base_ = [
    *(f'../../configs/seg/_base_/{name}.py' for name in ('upernet_convnext', 'ade20k_512x512', 'runtime')),
    '../tools/overfit_common.py']

bn = dict(type='BN', requires_grad=True)
channels = [32, 64, 128, 192]
head = dict(channels=64, dropout_ratio=0.0, norm_cfg=bn)
model = dict(
    data_preprocessor=dict(pad_val=1.0, size=(160, 160)),
    backbone=dict(arch=dict(depths=[1, 1, 2, 1], channels=channels), init_cfg=None),
    decode_head=dict(in_channels=channels, **head),
    auxiliary_head=dict(in_channels=128, **head),
    test_cfg=dict(_delete_=True, mode='whole'))

resize = dict(type='Resize', scale=(160, 160), keep_ratio=False)
labels = dict(type='LoadAnnotations', reduce_zero_label=True)
train_pipeline = [dict(type='LoadImageFromFile'), labels, resize, dict(type='PackSegInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), resize, labels, dict(type='PackSegInputs')]
images = dict(img_path='images/validation', seg_map_path='annotations/validation')
train_dataloader = dict(
    batch_size=4, num_workers=0, dataset=dict(data_prefix=images, indices=8, pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(indices=8, pipeline=test_pipeline))
test_dataloader = val_dataloader

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=_base_.iterations, save_best=None))
log_processor = dict(window_size=10)
