# Panoptic segmentation: 80 thing and 53 stuff classes. Not published. Drop path as in Mask2Former on Swin-T.
_base_ = [
    '_base_/mask2former_convnext.py', '_base_/coco_panoptic.py', '_base_/schedule_mask2former_50e.py',
    '_base_/runtime.py'
]

stuff = 53
pad = dict(type='BatchFixedSizePad', size=(1024, 1024), pad_mask=True, pad_seg=True, seg_pad_value=255)
model = dict(
    data_preprocessor=dict(pad_seg=True, batch_augments=[pad]),
    backbone=dict(arch='tiny', drop_path_rate=0.3, init_cfg=dict(checkpoint='convnext_tiny_in1k')),
    panoptic_head=dict(
        in_channels=[96, 192, 384, 768],
        num_stuff_classes=stuff,
        loss_cls=dict(class_weight=[1.0] * (80 + stuff) + [0.1])),
    panoptic_fusion_head=dict(num_stuff_classes=stuff),
    test_cfg=dict(panoptic_on=True))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=6))
default_hooks = dict(checkpoint=dict(save_best='coco_panoptic/PQ'))
