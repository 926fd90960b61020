"""mmdet's data preprocessor, without waiting for the GPU."""
from math import ceil

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmengine.model import ImgDataPreprocessor

from ..mm.normalize import normalized_batch
from ..mm.transfer import batch_to_device


class _Images(ImgDataPreprocessor):
    """mmengine's part of mmdet's preprocessor."""

    def cast_data(self, data):
        return batch_to_device(data, self.device)

    def forward(self, data: dict, training: bool = False) -> dict:
        images = data['inputs']
        if isinstance(images, torch.Tensor) or any(image.shape[0] != 3 for image in images):
            return super().forward(data, training)
        data = self.cast_data(data)
        images, divisor = data['inputs'], self.pad_size_divisor
        size = tuple(ceil(max(image.shape[axis] for image in images) / divisor) * divisor for axis in (1, 2))
        mean, std = (self.mean, self.std) if self._enable_normalize else (None, None)
        data['inputs'] = normalized_batch(images, mean, std, self._channel_conversion, size, self.pad_value)
        data.setdefault('data_samples', None)
        return data


@MODELS.register_module()
class FastDetDataPreprocessor(DetDataPreprocessor, _Images):
    """mmdet's DetDataPreprocessor with the same results: uint8 images, boxes and labels go to the GPU from pinned
    memory, are normalised there, and the host does not wait.
    """
