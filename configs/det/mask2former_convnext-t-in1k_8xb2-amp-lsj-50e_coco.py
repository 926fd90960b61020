# Instance segmentation. Not published. Drop path as in the official Mask2Former on Swin-T.
_base_ = [
    '_base_/mask2former_convnext.py', '_base_/coco_instance_lsj.py', '_base_/schedule_mask2former_50e.py',
    '_base_/runtime.py'
]

model = dict(
    data_preprocessor=dict(batch_augments=[dict(type='BatchFixedSizePad', size=(1024, 1024), pad_mask=True)]),
    backbone=dict(arch='tiny', drop_path_rate=0.3, init_cfg=dict(checkpoint='convnext_tiny_in1k')),
    panoptic_head=dict(in_channels=[96, 192, 384, 768]))
train_dataloader = dict(batch_size=2, num_workers=4)
optim_wrapper = dict(paramwise_cfg=dict(num_layers=6))
