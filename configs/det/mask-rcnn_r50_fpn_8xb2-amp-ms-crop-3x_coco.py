# The ConvNeXt-T recipe with ResNet-50 in its place, stem and first stage frozen as usual. Not published.
_base_ = './mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True, type='ResNet', depth=50, frozen_stages=1, norm_eval=True, style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor', paramwise_cfg=dict(_delete_=True, flat_decay_mult=0.0))
