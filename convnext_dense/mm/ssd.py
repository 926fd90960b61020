"""SSDHead of mmdet 3.3 cannot predict: BaseDenseHead reads an attribute ``loss_cls``, which SSDHead does not set.

Imported when mmdet's registry of models is first used (`SUBCLASSES` in `patches.py`).
"""
from mmdet.models.dense_heads import SSDHead

if not hasattr(SSDHead, 'loss_cls'):
    SSDHead.loss_cls = None  # no loss with scores of its own: softmax, as SSD has it
