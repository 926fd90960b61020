# The ConvNeXt-T recipe with ResNet-50 (mmseg's variant with a deep stem) in its place. Not published.
_base_ = './upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        _delete_=True, type='ResNetV1c', depth=50, norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet50_v1c')),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024))
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor', paramwise_cfg=dict(_delete_=True, flat_decay_mult=0.0))
