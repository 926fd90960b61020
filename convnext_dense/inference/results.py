"""What a Predictor returns: the objects of an image, or its label map. Needs numpy, not torch."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..visualization.draw import Instances


@dataclass
class Detections(Instances):
    """Objects found in one image: ``labels``, ``boxes``, ``masks`` and ``scores`` as in `Instances`, best first.

    Args:
        classes: names, indexed by the labels.
        size: (height, width) of the image.
    """
    classes: Sequence[str] = ()
    size: tuple[int, int] = (0, 0)

    @property
    def names(self) -> list[str]:
        """Class name of every object."""
        return [self.classes[label] for label in self.labels]


@dataclass
class Segmentation:
    """The class of every pixel of one image.

    Args:
        labels: (H, W) of the image, indices into `classes`; uint8, or uint16 with more than 255 classes.
        classes: names, indexed by the labels.
    """
    labels: np.ndarray
    classes: Sequence[str]
