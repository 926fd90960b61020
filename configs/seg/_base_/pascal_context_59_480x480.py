# Pascal Context with 59 classes: label 0, the background, is ignored; everything else as in pascal_context_480x480.py.
_base_ = './pascal_context_480x480.py'

train_pipeline = _base_.train_pipeline
train_pipeline[1]['reduce_zero_label'] = True
test_pipeline = _base_.test_pipeline
test_pipeline[2]['reduce_zero_label'] = True
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'][2][0]['reduce_zero_label'] = True

train_dataloader = dict(dataset=dict(type='PascalContextDataset59', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type='PascalContextDataset59', pipeline=test_pipeline))
test_dataloader = val_dataloader
