"""Losses in float32 under mixed precision, for heads of mmdet and mmseg."""
import torch
from torch import Tensor


class Float32Losses:
    """Makes a dense head assign targets and compute losses in float32; comes before the head's class.

    Matching costs and dice losses sum over thousands of points, which fp16 cannot hold (65,504 is its largest number).
    """

    def loss_by_feat(self, *args, **kwargs) -> dict[str, Tensor]:
        """As the head's; the tensors in the arguments may be of any floating-point type."""
        device = next(self.parameters()).device.type
        with torch.autocast(device, enabled=False):
            return super().loss_by_feat(*as_float32(args), **as_float32(kwargs))


def as_float32(value):
    """``value`` with its tensors of any floating-point type in float32, also inside lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if type(value) in (list, tuple):
        return type(value)(as_float32(item) for item in value)
    if type(value) is dict:
        return {key: as_float32(item) for key, item in value.items()}
    return value
