"""Batches of images normalised on their device."""
from collections.abc import Sequence

import torch
from torch import Tensor


def normalized_batch(images: Sequence[Tensor], mean: Tensor | None, std: Tensor | None, swap: bool,
                     size: tuple[int, int], pad_value: float) -> Tensor:
    """Images (C, h, w) as one float32 batch (N, C, *size), padded at the right and at the bottom after normalising.

    Args:
        mean, std: (C, 1, 1), or both None.
        swap: reverse the channels first, from BGR to RGB or back.
    """
    batch = images[0].new_full((len(images), images[0].shape[0], *size), pad_value, dtype=torch.float32)
    for slot, image in zip(batch, images, strict=True):
        image = (image.flip(0) if swap else image).float()
        slot[:, :image.shape[1], :image.shape[2]] = image if mean is None else (image - mean) / std
    return batch
