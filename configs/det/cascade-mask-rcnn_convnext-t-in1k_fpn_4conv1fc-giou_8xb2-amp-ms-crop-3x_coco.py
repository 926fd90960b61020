# Published: 50.4 box AP, 43.7 mask AP.
_base_ = [
    '_base_/cascade-mask-rcnn_convnext_fpn_4conv1fc-giou.py', '_base_/coco_instance.py', '_base_/schedule_3x.py',
    '_base_/runtime.py'
]

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.4, init_cfg=dict(checkpoint='convnext_tiny_in1k')),
    neck=dict(in_channels=[96, 192, 384, 768]))
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(decay_rate=0.7, num_layers=6))
