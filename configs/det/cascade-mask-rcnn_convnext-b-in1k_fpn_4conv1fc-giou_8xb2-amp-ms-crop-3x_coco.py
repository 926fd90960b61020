# Published: 52.7 box AP, 45.6 mask AP.
_base_ = [
    '_base_/cascade-mask-rcnn_convnext_fpn_4conv1fc-giou.py', '_base_/coco_instance.py', '_base_/schedule_3x.py',
    '_base_/runtime.py'
]

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.7, init_cfg=dict(checkpoint='convnext_base_in1k')),
    neck=dict(in_channels=[128, 256, 512, 1024]))
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(decay_rate=0.8, num_layers=12))
