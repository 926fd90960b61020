"""The decisions behind a new project's config, and the recipe that it inherits."""
import math
from dataclasses import dataclass
from pathlib import Path

from ..datasets.layout import DatasetInfo
from ..recipes.metafile import find_recipe, load_recipes

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
ASPECT = 1333 / 800  # long over short side of a detector's input, as in the published recipes


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

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.info.splits['train'].images / self.batch)

    @property
    def iterations(self) -> int:
        return self.epochs * self.steps_per_epoch


def base_config(task: str, arch: str) -> str:
    """Path of the config to inherit, below the package's configs/."""
    name = BASES[task][arch]
    if any(recipe.name == name for recipe in load_recipes() if recipe.published):
        return find_recipe(name).config.removeprefix('configs/')
    return f'{task}/{name}.py'
