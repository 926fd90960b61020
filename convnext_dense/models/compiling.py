"""torch.compile for the parts of a detector or segmentor whose shapes depend on the image alone."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..mm.fallbacks import MODELS

# parts of mmdet's and mmseg's models; RoI heads have other shapes, and what follows these parts' forward() has none
DENSE_PARTS = ('backbone', 'neck', 'rpn_head', 'bbox_head', 'decode_head', 'auxiliary_head')


def compile_parts(model: nn.Module, parts: Sequence[str] = DENSE_PARTS, **options) -> list[str]:
    """Compile the forward pass of a model's parts, in place; parameters and their names stay.

    A head's losses and predictions stay as they are: they call ``forward``, directly or as the module.

    Args:
        model: a detector or segmentor.
        parts: names of its attributes; those that it does not have are left out.
        **options: of torch.compile.

    Returns:
        the names of the compiled parts.
    """
    compiled = []
    for name in parts:
        part = getattr(model, name, None)
        if isinstance(part, nn.Module) and not isinstance(part, nn.ModuleList):
            part.forward = torch.compile(part.forward, **options)
            compiled.append(name)
    return compiled


def graphs_made() -> int:
    """How many graphs torch.compile has made in this process."""
    from torch._dynamo.utils import counters
    return counters['stats']['unique_graphs']


@MODELS.register_module()
class BatchPadToSizes(nn.Module):
    """Pad a batch to the smallest of a few sizes that holds it, so that compiled parts see few sizes.

    An entry of ``data_preprocessor.batch_augments``. Padding is zeros, after normalisation, at the right and below, as
    that of batches whose images differ in size. Which anchors are valid (``pad_shape``) does not change. A batch that
    is larger than every size stays as it is.

    Args:
        sizes: (height, width) pairs in pixels.

    Raises:
        ValueError: anything but such pairs.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]):
        super().__init__()
        pairs = [isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) and side > 0
                                                                           for side in size) for size in sizes]
        if not pairs or not all(pairs):
            raise ValueError(f'BatchPadToSizes: sizes must be (height, width) pairs of pixels, got {sizes!r}')
        self.sizes = sorted((tuple(size) for size in sizes), key=lambda size: (size[0] * size[1], size))

    def forward(self, inputs: Tensor, data_samples: list | None = None) -> tuple[Tensor, list | None]:
        """The batch (N, C, H, W), padded, and its data samples, whose masks are padded with it."""
        height, width = inputs.shape[-2:]
        size = next((size for size in self.sizes if size[0] >= height and size[1] >= width), (height, width))
        if size == (height, width):
            return inputs, data_samples
        for sample in data_samples or ():
            sample.set_metainfo(dict(batch_input_shape=size))
            for name in ('gt_instances', 'ignored_instances'):
                instances = sample.get(name)
                if instances is not None and 'masks' in instances:
                    instances.masks = instances.masks.pad(size, 0)
        return F.pad(inputs, (0, size[1] - width, 0, size[0] - height)), data_samples
