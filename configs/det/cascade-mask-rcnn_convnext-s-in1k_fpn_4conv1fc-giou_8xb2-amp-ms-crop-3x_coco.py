# Published: 51.9 box AP, 45.0 mask AP.
_base_ = [
    '_base_/cascade-mask-rcnn_convnext_fpn_4conv1fc-giou.py', '_base_/coco_instance.py', '_base_/schedule_3x.py',
    '_base_/runtime.py'
]

model = dict(
    backbone=dict(arch='small', drop_path_rate=0.6, init_cfg=dict(checkpoint='convnext_small_in1k')),
    neck=dict(in_channels=[96, 192, 384, 768]))
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(decay_rate=0.7, num_layers=12))
