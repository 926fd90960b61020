# Cityscapes instance segmentation: 8 classes, COCO jsons made by mmdet's tools/dataset_converters/cityscapes.py,
# sides of 800 to 1024 pixels in training, 1024 in testing, the training set 8 times an epoch. COCO's AP is measured;
# Cityscapes' own needs mmdet's CityScapesMetric and pip install cityscapesscripts.
_base_ = './coco_instance.py'

dataset_type = 'CityscapesDataset'
data_root = 'data/cityscapes/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='FastLoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=[(2048, 800), (2048, 1024)], keep_ratio=True),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='FastPackDetInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = (2048, 1024)

train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=8,
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            ann_file='annotations/instancesonly_filtered_gtFine_train.json',
            data_prefix=dict(img='leftImg8bit/train/'),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=train_pipeline)))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instancesonly_filtered_gtFine_val.json',
        data_prefix=dict(img='leftImg8bit/val/'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/instancesonly_filtered_gtFine_val.json')
test_evaluator = val_evaluator
