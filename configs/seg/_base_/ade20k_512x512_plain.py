# ade20k_512x512.py without changes of colour: what DINOv3's linear evaluation trains with.
_base_ = './ade20k_512x512.py'

train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'FastPhotoMetricDistortion']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
