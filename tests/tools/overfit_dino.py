# DINO on ConvNeXt-atto, small enough to learn eight COCO images by heart in a minute on one core. Its width stays at
# 256, which mmdet's encoding of the queries' boxes is fixed to.
_base_ = ['../../configs/det/_base_/dino_convnext_4scale.py', './overfit_data.py']

ffn = dict(feedforward_channels=512)
model = dict(
    num_queries=30,
    # zeros have no variance, which LayerNorm divides by; see mask-rcnn_convnext_fpn_small.py
    data_preprocessor=dict(pad_value=1.0),
    backbone=_base_.atto,
    neck=dict(in_channels=[80, 160, 320]),
    encoder=dict(num_layers=1, layer_cfg=dict(ffn_cfg=ffn)),
    decoder=dict(num_layers=2, layer_cfg=dict(ffn_cfg=ffn)),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=20)),
    test_cfg=dict(max_per_img=30))
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator

iterations = 80
train_cfg = dict(max_iters=iterations, val_interval=iterations)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=iterations)
default_hooks = dict(checkpoint=dict(interval=iterations))
