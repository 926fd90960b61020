# Published: 54.8 box AP, 47.6 mask AP.
_base_ = [
    '_base_/cascade-mask-rcnn_convnext_fpn_4conv1fc-giou.py', '_base_/coco_instance.py', '_base_/schedule_3x.py',
    '_base_/runtime.py'
]

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.7, init_cfg=dict(checkpoint='convnext_large_in22k')),
    neck=dict(in_channels=[192, 384, 768, 1536]))
optim_wrapper = dict(
    type='OptimWrapper',  # float32, as the official L and XL
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(decay_rate=0.7, num_layers=12))
