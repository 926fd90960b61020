# Cityscapes, 19 classes: crops of 512 (height) x 1024, whole images of 1024 x 2048 in testing. Labels are the
# *_labelTrainIds.png files of cityscapesscripts.
_base_ = './ade20k_512x512.py'

dataset_type = 'CityscapesDataset'
data_root = 'data/cityscapes/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='FastLoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='FastRandomCrop', crop_size=(512, 1024), cat_max_ratio=0.75),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='FastPhotoMetricDistortion'),
    dict(type='FastPackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
    dict(type='FastLoadAnnotations'),  # after Resize: labels keep the image's own size
    dict(type='FastPackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(int(2048 * r), int(1024 * r)), keep_ratio=True)
             for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
            [dict(type='FastRandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='FastLoadAnnotations')],
            [dict(type='FastPackSegInputs')],
        ]),
]

source = dict(type=dataset_type, data_root=data_root)
train_dataloader = dict(
    dataset=dict(
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline,
        **source))
val_dataloader = dict(
    dataset=dict(
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'), pipeline=test_pipeline, **source))
test_dataloader = val_dataloader
