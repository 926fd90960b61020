# Published: 53.6 mIoU, 54.0 with multi-scale + flip.
_base_ = ['_base_/upernet_convnext.py', '_base_/ade20k_640x640.py', '_base_/schedule_160k.py', '_base_/runtime.py']

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(arch='xlarge', drop_path_rate=0.4, init_cfg=dict(checkpoint='convnext_xlarge_in22k')),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)))
optim_wrapper = dict(
    type='OptimWrapper',  # float32, as the official L and XL
    optimizer=dict(lr=8e-5),
    paramwise_cfg=dict(num_layers=12))
