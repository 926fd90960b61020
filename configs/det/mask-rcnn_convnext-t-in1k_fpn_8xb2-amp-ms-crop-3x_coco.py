# Published: 46.2 box AP, 41.7 mask AP.
_base_ = ['_base_/mask-rcnn_convnext_fpn.py', '_base_/coco_instance.py', '_base_/schedule_3x.py', '_base_/runtime.py']

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.4, init_cfg=dict(checkpoint='convnext_tiny_in1k')),
    neck=dict(in_channels=[96, 192, 384, 768]))
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(decay_rate=0.95, num_layers=6))
