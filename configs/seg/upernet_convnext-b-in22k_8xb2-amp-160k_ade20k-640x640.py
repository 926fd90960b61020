# Published: 52.6 mIoU, 53.1 with multi-scale + flip.
_base_ = ['_base_/upernet_convnext.py', '_base_/ade20k_640x640.py', '_base_/schedule_160k.py', '_base_/runtime.py']

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(arch='base', drop_path_rate=0.4, init_cfg=dict(checkpoint='convnext_base_in22k')),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)))
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(num_layers=12))
