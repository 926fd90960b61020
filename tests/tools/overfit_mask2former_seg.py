# Mask2Former on ConvNeXt-atto for labels, small enough to learn eight ADE20K images by heart in minutes on one core.
_base_ = ['../../configs/seg/_base_/mask2former_convnext.py', './overfit_ade.py']

model = dict(
    data_preprocessor=_base_.preprocessor,
    backbone=_base_.atto,
    decode_head=dict(num_queries=30, train_cfg=dict(num_points=1024), **_base_.small_mask2former))
