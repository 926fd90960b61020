# Objects365 v2: boxes of 365 classes, images resized to fit 1333 x 800.
_base_ = './coco_detection.py'

dataset_type = 'Objects365V2Dataset'
data_root = 'data/Objects365/Obj365_v2/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='FastLoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='FastPackDetInputs'),
]

source = dict(type=dataset_type, data_root=data_root)
train_dataloader = dict(
    dataset=dict(
        ann_file='annotations/zhiyuan_objv2_train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
        **source))
val_dataloader = dict(
    dataset=dict(ann_file='annotations/zhiyuan_objv2_val.json', data_prefix=dict(img='val/'), **source))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/zhiyuan_objv2_val.json')
test_evaluator = val_evaluator
