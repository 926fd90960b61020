"""The decisions behind a new project's config, and the recipe that it inherits."""
import math
from dataclasses import dataclass
from pathlib import Path

from ..datasets.layout import DatasetInfo
from ..recipes.metafile import find_recipe, load_recipes
from .anchors import RECIPE, Anchors

# task -> architecture -> the config to inherit: a published recipe, or, for atto, ours with ImageNet weights
BASES = {
    'det': {'atto': 'mask-rcnn_convnextv2-atto-in1k_fpn_8xb2-amp-ms-crop-3x_coco',
            'tiny': 'mask-rcnn_convnext-t-in1k', 'small': 'cascade-mask-rcnn_convnext-s-in1k',
            'base': 'cascade-mask-rcnn_convnext-b-in22k', 'large': 'cascade-mask-rcnn_convnext-l-in22k',
            'xlarge': 'cascade-mask-rcnn_convnext-xl-in22k'},
    'seg': {'atto': 'upernet_convnextv2-atto-in1k_8xb2-amp-160k_ade20k-512x512',
            'tiny': 'upernet_convnext-t-in1k_ade20k-512x512', 'small': 'upernet_convnext-s-in1k_ade20k-512x512',
            'base': 'upernet_convnext-b-in22k_ade20k-640x640', 'large': 'upernet_convnext-l-in22k_ade20k-640x640',
            'xlarge': 'upernet_convnext-xl-in22k_ade20k-640x640'},
}
# task -> model -> the config to inherit, on ConvNeXt-T; the first of a pair is for data with masks. What `BASES` has is
# 'mask-rcnn' (Cascade for the larger backbones) and 'upernet'.
MODELS = {
    'det': {'mask2former': ('mask2former_convnext-t-in1k_8xb2-amp-lsj-50e_coco', None),
            'rtmdet': ('rtmdet-ins_convnext-t-in1k_8xb16-amp-100e_coco', 'rtmdet_convnext-t-in1k_8xb16-amp-100e_coco'),
            'dino': (None, 'dino_convnext-t-in1k_8xb2-12e_coco'),
            'retinanet': (None, 'retinanet_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco'),
            'fcos': (None, 'fcos_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco')},
    'seg': {'mask2former': ('mask2former_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512', None)},
}
DEFAULT_MODEL = {'det': 'mask-rcnn', 'seg': 'upernet'}
ASPECT = 1333 / 800  # long over short side of a detector's input, as in the published recipes


@dataclass(frozen=True)
class Detector:
    """What a two-stage detector's settings say about the sizes and the number of objects.

    Args:
        anchors: of the RPN.
        proposals: regions of an image that reach the box head.
        detections: kept of an image, at most.
        rpn_samples: anchors of an image that the RPN's loss takes. (The box head's loss keeps the base's number of
            proposals: the mask head sees a quarter of them, and five times as many made an iteration take 2.5 times as
            long.)
    """
    anchors: Anchors = RECIPE
    proposals: int = 1000
    detections: int = 100
    rpn_samples: int = 256


PUBLISHED = Detector()  # the defaults above are those of the published recipes
SMALL = Detector(proposals=250, rpn_samples=128)  # mask-rcnn_convnext_fpn_small.py


@dataclass(frozen=True)
class Plan:
    """Everything that the config says beyond its base.

    Args:
        task: 'det' or 'seg'.
        info: the data set.
        data_root: its folder, absolute.
        arch: a key of `BASES`.
        start: one of `STARTS`, or a checkpoint file.
        short: short side of the input in pixels; for segmentation also the side of the square crops.
        batch: images per step on one device.
        epochs: passes over the training images.
        workers: data loader processes.
        detector: det: settings that follow from the objects.
        reasons: a sentence for each choice, without any text from the data.
        model: a key of `MODELS`, or None for the model of `BASES`.
    """
    task: str
    info: DatasetInfo
    data_root: Path
    arch: str
    start: str
    short: int
    batch: int
    epochs: int
    workers: int
    detector: Detector | None = None
    reasons: tuple[str, ...] = ()
    model: str | None = None

    @property
    def masks(self) -> bool:
        """Whether the model learns instance masks: the data have them, and the model can."""
        return bool(self.info.has_masks and (self.model is None or MODELS[self.task][self.model][0]))

    @property
    def scale(self) -> tuple[int, int]:
        """Long and short side of a detector's input, at most, in pixels."""
        return round(self.short * ASPECT), self.short

    @property
    def loads_detector(self) -> bool:
        """Whether the weights of a whole detector or segmentor are loaded: published ones, or a file."""
        return self.start not in ('random', 'imagenet')

    @property
    def base_detector(self) -> Detector:
        """What the inherited config says."""
        return SMALL if self.start == 'random' else PUBLISHED

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.info.splits['train'].images / self.batch)

    @property
    def iterations(self) -> int:
        return self.epochs * self.steps_per_epoch


def base_config(task: str, arch: str, model: str | None = None, masks: bool = False) -> str:
    """Path of the config to inherit, below the package's configs/."""
    if model is not None:
        with_masks, without = MODELS[task][model]
        return f'{task}/{with_masks if masks or without is None else without}.py'
    name = BASES[task][arch]
    if any(recipe.name == name for recipe in load_recipes() if recipe.published):
        return find_recipe(name).config.removeprefix('configs/')
    return f'{task}/{name}.py'
