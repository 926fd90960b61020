# 36 epochs on 8 GPUs x 2 images; AdamW with layer-wise learning-rate decay, whose rate and depth the leaf gives.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=36, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# The official configs inherit mmdet 2's warm-up of 500 iterations; mmdet 3's own port takes 1000. mmengine counts both
# ends: end=501 reaches the full rate after 500 iterations.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=501),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]

optim_wrapper = dict(
    type='AmpOptimWrapper',  # fp16 with a dynamic loss scale, as T, S and B; L and XL set 'OptimWrapper'
    constructor='LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise'),
    clip_grad=None)

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 8 x 2
