"""COCO AP and mIoU: exact and fast replacements of mmdet's and mmseg's metrics, and files of predictions."""
