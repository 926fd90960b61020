# coco_rtmdet.py with masks, which stay polygons until the image is packed (rtmdet-ins_l_8xb32-300e_coco.py of mmdet).
_base_ = './coco_rtmdet.py'

image_size = (640, 640)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False)]
crop = dict(type='RandomCrop', crop_size=image_size, recompute_bbox=True, allow_negative_crop=True)
filter_boxes = dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1))
train_pipeline = [*load, *_base_.train_pipeline[2:4], crop, *_base_.train_pipeline[5:9], filter_boxes,
                  dict(type='PackDetInputs')]
train_pipeline_stage2 = [*load, _base_.train_pipeline_stage2[2], crop, filter_boxes, *_base_.train_pipeline_stage2[4:]]
test_pipeline = _base_.test_pipeline
test_pipeline[3]['with_mask'] = True

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
