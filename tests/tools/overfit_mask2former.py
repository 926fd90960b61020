# Mask2Former on ConvNeXt-atto, small enough to learn eight COCO images by heart in minutes on one core.
_base_ = ['../../configs/det/_base_/mask2former_convnext.py', './overfit_data.py']

model = dict(
    # zeros have no variance, which LayerNorm divides by; see mask-rcnn_convnext_fpn_small.py
    data_preprocessor=dict(pad_value=1.0),
    backbone=_base_.atto,
    panoptic_head=dict(num_queries=20, **_base_.small_mask2former),
    train_cfg=dict(num_points=1024))
