# Pascal Context with 60 classes, background included: crops of 480, images resized to fit 520 x 520.
# pascal_context_59_480x480.py leaves the background out.
_base_ = './ade20k_512x512.py'

dataset_type = 'PascalContextDataset'
data_root = 'data/VOCdevkit/VOC2010/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='FastLoadAnnotations', reduce_zero_label=False),
    dict(type='RandomResize', scale=(520, 520), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='FastRandomCrop', crop_size=(480, 480), cat_max_ratio=0.75),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='FastPhotoMetricDistortion'),
    dict(type='FastPackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(520, 520), keep_ratio=True),
    dict(type='FastLoadAnnotations', reduce_zero_label=False),  # after Resize: labels keep the image's own size
    dict(type='FastPackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(int(520 * r), int(520 * r)), keep_ratio=True)
             for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
            [dict(type='FastRandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='FastLoadAnnotations', reduce_zero_label=False)],
            [dict(type='FastPackSegInputs')],
        ]),
]

source = dict(
    type=dataset_type,
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'))
train_dataloader = dict(
    batch_size=4,
    dataset=dict(ann_file='ImageSets/SegmentationContext/train.txt', pipeline=train_pipeline, **source))
val_dataloader = dict(
    dataset=dict(ann_file='ImageSets/SegmentationContext/val.txt', pipeline=test_pipeline, **source))
test_dataloader = val_dataloader
