"""Sliding-window inference with several windows in one forward pass."""
from itertools import product

import torch
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class SlideEncoderDecoder(EncoderDecoder):
    """mmseg's EncoderDecoder, whose sliding windows go through the network several at a time.

    ``test_cfg.windows`` says how many; the default is 8 on a GPU and 1 on a CPU, where a window keeps all cores busy.
    Windows lie where mmseg's lie, and the results are the same to float tolerance.
    """

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Class scores (N, classes, H, W) of images (N, 3, H, W): the mean over all windows that see a pixel."""
        batch, _, height, width = inputs.shape
        crop_height, crop_width = (min(*sides) for sides in zip(self.test_cfg.crop_size, (height, width), strict=True))
        corners = list(product(*map(window_starts, (height, width), self.test_cfg.crop_size, self.test_cfg.stride)))
        together = self.test_cfg.get('windows') or (8 if inputs.is_cuda else 1)
        scores = inputs.new_zeros((batch, self.out_channels, height, width))
        counts = inputs.new_zeros((1, 1, height, width))
        for start in range(0, len(corners), together):
            places = [(..., slice(y, y + crop_height), slice(x, x + crop_width))
                      for y, x in corners[start:start + together]]
            windows = torch.cat([inputs[place] for place in places])
            # decode heads resize their scores to the first img_shape
            metas = [{**meta, 'img_shape': windows.shape[2:]} for meta in batch_img_metas] * len(places)
            for place, found in zip(places, self.encode_decode(windows, metas).split(batch), strict=True):
                scores[place] += found
                counts[place] += 1
        return scores / counts


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """First pixels of the windows along a side, as mmseg places them: the last one ends with the image."""
    windows = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(index * stride + crop, length) - crop, 0) for index in range(windows)]
