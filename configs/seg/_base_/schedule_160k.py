# 160k iterations on 8 GPUs x 2 images; AdamW with stage-wise learning-rate decay, whose depth the leaf gives.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# The official schedule multiplies the two from iteration 0 on; mmseg 1's port starts its poly after the warm-up.
# mmengine counts both ends: with end=160001 the rate would be 0 after 160000 iterations, the first one not trained.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1501),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=160001),
]

optim_wrapper = dict(
    type='AmpOptimWrapper',  # fp16 with a dynamic loss scale, as T, S and B; L and XL set 'OptimWrapper'
    constructor='LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(decay_type='stage_wise', decay_rate=0.9),
    clip_grad=None)

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 8 x 2
