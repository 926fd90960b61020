# Data and schedule of the configs that learn eight COCO images by heart; the test names the images.
_base_ = [f'../../configs/det/_base_/{name}.py' for name in ('coco_instance', 'runtime')]

size = (256, 256)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
resize = dict(type='Resize', scale=size, keep_ratio=True)
train_pipeline = [*load, resize, dict(type='PackDetInputs')]
test_pipeline = [load[0], resize, load[1], dict(
    type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
images = dict(img='train2017/')
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True), batch_sampler=None,
    dataset=dict(data_prefix=images, pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_prefix=images, pipeline=test_pipeline))
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
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=iterations, save_best=None))
log_processor = dict(window_size=10, by_epoch=False)
randomness = dict(seed=0)
