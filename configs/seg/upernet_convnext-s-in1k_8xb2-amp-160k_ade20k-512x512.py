# Published: 48.7 mIoU, 49.6 with multi-scale + flip.
_base_ = ['_base_/upernet_convnext.py', '_base_/ade20k_512x512.py', '_base_/schedule_160k.py', '_base_/runtime.py']

model = dict(
    backbone=dict(arch='small', drop_path_rate=0.3, init_cfg=dict(checkpoint='convnext_small_in1k')),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(num_layers=12))
