# Published: 46.0 mIoU, 46.7 with multi-scale + flip.
_base_ = ['_base_/upernet_convnext.py', '_base_/ade20k_512x512.py', '_base_/schedule_160k.py', '_base_/runtime.py']

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.4, init_cfg=dict(checkpoint='convnext_tiny_in1k')),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(num_layers=6))
