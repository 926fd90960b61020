# tests/tools/overfit_coco.py without masks: a Faster R-CNN.
_base_ = '../tools/overfit_coco.py'

model = dict(type='FasterRCNN', roi_head=dict(mask_roi_extractor=None, mask_head=None))
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
