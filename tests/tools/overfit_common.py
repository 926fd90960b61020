# What the configs that learn eight real images by heart share: their schedule, and small networks.
# mask-rcnn_convnext_fpn_small.py says why the weights are these.
atto = dict(
    arch='atto',
    init_cfg=dict(_delete_=True, type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in', nonlinearity='linear',
                  distribution='normal'))
narrow_width = 64
narrow = dict(embed_dims=narrow_width)
narrow_ffn = dict(embed_dims=narrow_width, feedforward_channels=2 * narrow_width)
small_mask2former = dict(
    in_channels=[40, 80, 160, 320],
    feat_channels=narrow_width,
    out_channels=narrow_width,
    pixel_decoder=dict(
        norm_cfg=dict(num_groups=8),
        encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=narrow, ffn_cfg=narrow_ffn)),
        positional_encoding=dict(num_feats=narrow_width // 2)),
    positional_encoding=dict(num_feats=narrow_width // 2),
    transformer_decoder=dict(
        num_layers=2, layer_cfg=dict(self_attn_cfg=narrow, cross_attn_cfg=narrow, ffn_cfg=narrow_ffn)))

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
randomness = dict(seed=0)
