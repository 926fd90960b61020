"""The shapes data set for semantic segmentation, and a template for an ADE-style data set of your own."""
from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset

from .shapes_render import SEG_CLASSES, SEG_PALETTE


@DATASETS.register_module()
class ShapesSegDataset(BaseSegDataset):
    """Background and three shapes, from pairs `images/<split>/*.jpg` and `annotations/<split>/*.png`.

    A PNG value v stands for `classes[v - 1]`, and 0 for unlabelled, as in ADE20K: `reduce_zero_label=True` moves the
    values to 0, 1, ... and 255, which loss and metrics ignore. Background is a class of its own, so that false
    positives cost mIoU.
    """
    METAINFO = {'classes': SEG_CLASSES, 'palette': [list(colour) for colour in SEG_PALETTE]}

    def __init__(self, img_suffix='.jpg', seg_map_suffix='.png', reduce_zero_label=True, **kwargs):
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, reduce_zero_label=reduce_zero_label,
                         **kwargs)
