# Published: 53.2 mIoU, 53.7 with multi-scale + flip.
_base_ = ['_base_/upernet_convnext.py', '_base_/ade20k_640x640.py', '_base_/schedule_160k.py', '_base_/runtime.py']

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(arch='large', drop_path_rate=0.4, init_cfg=dict(checkpoint='convnext_large_in22k')),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)))
optim_wrapper = dict(
    type='OptimWrapper',  # float32, as the official L and XL
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(num_layers=12))
