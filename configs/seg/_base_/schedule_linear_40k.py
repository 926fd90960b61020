# DINOv3's linear evaluation: 40k iterations on 8 GPUs x 2 images, AdamW 1e-3 with weight decay 1e-3, gradients clipped
# at 35 (dinov3/eval/segmentation/config.py), linear warm-up of 1500 iterations from 1e-6, then a cosine to zero. Ours:
# float32, and a cosine that starts in iteration 0, which lowers the rate by 0.3 % when the warm-up ends.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=40000, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1501),
    dict(type='CosineAnnealingLR', eta_min=0.0, T_max=40000, by_epoch=False, begin=0, end=40000),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-3),
    clip_grad=dict(max_norm=35.0))

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 8 x 2
