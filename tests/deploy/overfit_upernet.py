# UPerNet, small enough to learn eight ADE20K images by heart in a minute on one core.
_base_ = ['../../configs/seg/_base_/upernet_convnext.py', '../tools/overfit_ade.py']

bn = dict(type='BN', requires_grad=True)
channels = [32, 64, 128, 192]
head = dict(channels=64, dropout_ratio=0.0, norm_cfg=bn)
model = dict(
    data_preprocessor=_base_.preprocessor,
    backbone=dict(arch=dict(depths=[1, 1, 2, 1], channels=channels), init_cfg=None),
    decode_head=dict(in_channels=channels, **head),
    auxiliary_head=dict(in_channels=128, **head),
    test_cfg=dict(_delete_=True, mode='whole'))
