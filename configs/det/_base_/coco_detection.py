# COCO 2017 without masks, for detectors of boxes; coco_instance.py otherwise.
_base_ = './coco_instance.py'

train_pipeline = _base_.train_pipeline
train_pipeline[1]['with_mask'] = False
test_pipeline = _base_.test_pipeline
test_pipeline[2]['with_mask'] = False

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
