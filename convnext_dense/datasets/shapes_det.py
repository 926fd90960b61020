"""The shapes data set for detection, and a template for a COCO-style data set of your own (docs/shapes.md)."""
from mmengine.registry import DATASETS

from .coco import FastCocoDataset
from .shapes_render import CLASSES, PALETTE


@DATASETS.register_module()
class ShapesDetDataset(FastCocoDataset):
    """Circles, squares and triangles with boxes and instance masks, from `<data_root>/annotations/*.json`.

    Names in `classes` must be the category names of the json file, in the order of the model's outputs; `palette`
    has one RGB colour per class. The arguments are those of mmdet's CocoDataset.
    """
    METAINFO = {'classes': CLASSES, 'palette': list(PALETTE)}
