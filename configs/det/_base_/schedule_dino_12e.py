# DINO's schedule: 12 epochs on 8 GPUs x 2 images, AdamW 1e-4 with weight decay 1e-4, gradients clipped at 0.1, the rate
# divided by 10 after epoch 11, float32. Ours: layer decay instead of a tenth of the rate in the whole backbone, with
# the published rate of Cascade Mask R-CNN (0.7), which gives its stem 0.08 and its last stage 0.49.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[11], gamma=0.1)]

optim_wrapper = dict(
    type='OptimWrapper',  # boxes are sigmoids of sums over six layers: fp16 would round them to half a pixel
    constructor='LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7),
    clip_grad=dict(max_norm=0.1, norm_type=2))

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 8 x 2
