# Mask2Former's schedule: 50 epochs on 8 GPUs x 2 images, AdamW 1e-4, gradients clipped at 0.01, the rate divided by 10
# after 327778 and 355092 of some 367,000 iterations. Ours: layer decay instead of a tenth of the rate in the whole
# backbone, with the published rate of Cascade Mask R-CNN (0.7), which gives its stem 0.08 and its last stage 0.49.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=50, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=368750, milestones=[327778, 355092], gamma=0.1),
]

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
