"""COCO box and mask AP through faster-coco-eval, in the place of mmdet's CocoMetric."""
