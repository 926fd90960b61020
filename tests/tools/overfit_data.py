# Data of the configs that learn eight COCO images by heart; the test names the images.
_base_ = [
    '../../configs/det/_base_/coco_instance.py', '../../configs/det/_base_/runtime.py', './overfit_common.py']

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

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=_base_.iterations, save_best=None))
log_processor = dict(window_size=10, by_epoch=False)
