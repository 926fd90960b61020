# Eight ADE20K images at 160 pixels and a short schedule, for models small enough to learn them by heart on one core.
_base_ = [*(f'../../configs/seg/_base_/{name}.py' for name in ('ade20k_512x512', 'runtime')), './overfit_common.py']

# for `model`; zeros have no variance, which LayerNorm divides by: see upernet_convnext_small.py
preprocessor = dict(pad_val=1.0, size=(160, 160))

resize = dict(type='Resize', scale=(160, 160), keep_ratio=False)
labels = dict(type='LoadAnnotations', reduce_zero_label=True)
train_pipeline = [dict(type='LoadImageFromFile'), labels, resize, dict(type='PackSegInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), resize, labels, dict(type='PackSegInputs')]
images = dict(img_path='images/validation', seg_map_path='annotations/validation')
train_dataloader = dict(
    batch_size=4, num_workers=0, dataset=dict(data_prefix=images, indices=8, pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(indices=8, pipeline=test_pipeline))
test_dataloader = val_dataloader

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=_base_.iterations, save_best=None))
log_processor = dict(window_size=10)
