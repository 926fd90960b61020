# Not published. Drop path 0.2, as mmdet's and the official DINO on Swin-L.
_base_ = ['_base_/dino_convnext_4scale.py', '_base_/coco_detection.py', '_base_/schedule_dino_12e.py',
          '_base_/runtime.py']

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.2, init_cfg=dict(checkpoint='convnext_tiny_in1k')),
    neck=dict(in_channels=[192, 384, 768]))
train_dataloader = dict(dataset=dict(filter_cfg=dict(filter_empty_gt=False)))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=6))
