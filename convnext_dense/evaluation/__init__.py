"""COCO AP and mIoU: exact and fast metrics that stand in for mmdet's and mmseg's own."""
