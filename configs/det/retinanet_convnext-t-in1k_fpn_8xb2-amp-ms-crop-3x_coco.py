# Not published. Schedule, augmentation and optimizer of the published Mask R-CNN on ConvNeXt-T.
_base_ = ['_base_/retinanet_convnext_fpn.py', '_base_/coco_detection.py', '_base_/schedule_3x.py', '_base_/runtime.py']

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.4, init_cfg=dict(checkpoint='convnext_tiny_in1k')),
    neck=dict(in_channels=[192, 384, 768]))
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(decay_rate=0.95, num_layers=6))
