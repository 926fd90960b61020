# LVIS v1: 1203 classes on COCO 2017 images, which the annotation files name by their folder (train2017/, val2017/).
# Rare classes are repeated (oversampling threshold 1e-3), short sides of 640 to 800 pixels. Heads for it keep up to 300
# objects of any score: model.test_cfg.rcnn=dict(score_thr=0.0001, max_per_img=300). Needs pip install lvis.
_base_ = './coco_instance.py'

dataset_type = 'LVISV1Dataset'
data_root = 'data/lvis_v1/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='FastLoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomChoiceResize', scales=[(1333, short) for short in range(640, 801, 32)], keep_ratio=True),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='FastPackDetInputs'),
]

source = dict(type=dataset_type, data_root=data_root, data_prefix=dict(img=''))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ClassBalancedDataset',
        oversample_thr=1e-3,
        dataset=dict(
            ann_file='annotations/lvis_v1_train.json',
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=train_pipeline,
            **source)))
val_dataloader = dict(dataset=dict(ann_file='annotations/lvis_v1_val.json', **source))
test_dataloader = val_dataloader

val_evaluator = dict(type='LVISMetric', ann_file=data_root + 'annotations/lvis_v1_val.json')
test_evaluator = val_evaluator
