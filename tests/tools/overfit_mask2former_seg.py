# Mask2Former on ConvNeXt-atto for labels, small enough to learn eight ADE20K images by heart in minutes on one core.
_base_ = [f'../../configs/seg/_base_/{name}.py' for name in ('mask2former_convnext', 'ade20k_512x512', 'runtime')]

width = 64
narrow, ffn = dict(embed_dims=width), dict(embed_dims=width, feedforward_channels=2 * width)
model = dict(
    # zeros have no variance, which LayerNorm divides by; see upernet_convnext_small.py for this and the weights
    data_preprocessor=dict(pad_val=1.0, size=(160, 160)),
    backbone=dict(
        arch='atto',
        init_cfg=dict(_delete_=True, type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in',
                      nonlinearity='linear', distribution='normal')),
    decode_head=dict(
        in_channels=[40, 80, 160, 320], feat_channels=width, out_channels=width, num_queries=30,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=8),
            encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=narrow, ffn_cfg=ffn)),
            positional_encoding=dict(num_feats=width // 2)),
        positional_encoding=dict(num_feats=width // 2),
        transformer_decoder=dict(
            num_layers=2, layer_cfg=dict(self_attn_cfg=narrow, cross_attn_cfg=narrow, ffn_cfg=ffn)),
        train_cfg=dict(num_points=1024)))

resize = dict(type='Resize', scale=(160, 160), keep_ratio=False)
labels = dict(type='LoadAnnotations', reduce_zero_label=True)
train_pipeline = [dict(type='LoadImageFromFile'), labels, resize, dict(type='PackSegInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), resize, labels, dict(type='PackSegInputs')]
images = dict(img_path='images/validation', seg_map_path='annotations/validation')
train_dataloader = dict(
    batch_size=4, num_workers=0, dataset=dict(data_prefix=images, indices=8, pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(indices=8, pipeline=test_pipeline))
test_dataloader = val_dataloader

iterations = 160
train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=0, end=iterations),
]
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0), clip_grad=dict(max_norm=5.0))
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=iterations, save_best=None))
log_processor = dict(window_size=10)
randomness = dict(seed=0)
