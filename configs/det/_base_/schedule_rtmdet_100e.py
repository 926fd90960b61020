# The schedule of mmdet's RTMDet on ConvNeXt-B (rtmdet_l_convnext_b_4xb32-100e_coco.py): 100 epochs, AdamW 1e-3 with
# layer decay 0.8 for 128 images a step, cosine from epoch 50, and the weights' moving average. Ours: 8 GPUs x 16.
# (RTMDet-L itself takes 300 epochs at 4e-3 for 256 images.)
epochs, plain_epochs, lr = 100, 10, 1e-3  # plain: without mosaic and mixup
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=10,
                 dynamic_intervals=[(epochs - plain_epochs, 1)])
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(type='CosineAnnealingLR', eta_min=lr * 0.05, begin=epochs // 2, end=epochs, T_max=epochs // 2, by_epoch=True,
         convert_to_iter_based=True),
]

optim_wrapper = dict(
    type='AmpOptimWrapper',
    constructor='LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.8))

auto_scale_lr = dict(enable=False, base_batch_size=128)  # 8 x 16
