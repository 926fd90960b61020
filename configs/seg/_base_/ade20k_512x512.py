# ADE20K scene parsing, 150 classes, crops of 512; ade20k_640x640.py is the same at 640.
dataset_type = 'ADE20KDataset'
data_root = 'data/ade/ADEChallengeData2016/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    # label 0 is "other": 0 -> 255 (ignored), 1..150 -> 0..149
    dict(type='FastLoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='FastRandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='FastPhotoMetricDistortion'),
    dict(type='FastPackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='FastLoadAnnotations', reduce_zero_label=True),  # after Resize: labels keep the image's own size
    dict(type='FastPackSegInputs'),
]
# The published multi-scale + flip protocol: ratios of the test scale, on whole images (model.test_cfg.mode='whole').
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(int(2048 * r), int(512 * r)), keep_ratio=True)
             for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
            [dict(type='FastRandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='FastLoadAnnotations', reduce_zero_label=True)],
            [dict(type='FastPackSegInputs')],
        ]),
]
tta_model = dict(type='SegTTAModel')

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='FastIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
