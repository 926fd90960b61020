# Mask2Former's schedule: 160k iterations on 8 GPUs x 2 images, AdamW 1e-4, gradients clipped at 0.01, poly decay with
# power 0.9. Ours: layer decay instead of a tenth of the rate in the whole backbone, as in the detector's
# schedule_mask2former_50e.py.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=160001)]

optim_wrapper = dict(
    type='AmpOptimWrapper',
    constructor='LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        decay_type='layer_wise',
        decay_rate=0.7,
        custom_keys=dict(
            query_embed=dict(decay_mult=0.0), query_feat=dict(decay_mult=0.0), level_embed=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=0.01, norm_type=2))

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 8 x 2
