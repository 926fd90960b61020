"""mmseg's EncoderDecoder with several sliding windows in one forward pass, and label maps without full-size scores."""
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn import functional as F

from ..utils.windows import window_starts

CLASSES_TOGETHER = 32  # whose scores are at the size of the image at one time


@MODELS.register_module(name=['FastEncoderDecoder', 'SlideEncoderDecoder'])
class FastEncoderDecoder(EncoderDecoder):
    """mmseg's EncoderDecoder; predictions take less time and memory and are the same to float tolerance.

    ``test_cfg.windows`` says how many sliding windows go through the network together; the default is 8 on a GPU and 1
    on a CPU, where a window keeps all cores busy. Windows lie where mmseg's lie.

    Attributes:
        labels_only: True gives label maps alone (``pred_sem_seg``, no ``seg_logits``). Scores of all classes at the
            size of the image, of which mmseg has several copies, are then never in memory: the head's own, smaller
            maps are kept, and a few classes at a time are upsampled, averaged over windows and compared.
    """

    labels_only = False

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """As mmseg's: images (N, 3, H, W) to data samples with ``pred_sem_seg``, and ``seg_logits`` if kept."""
        if not self.labels_only or data_samples is None or not self.scores_are_upsampled():
            return super().predict(inputs, data_samples)
        size, windows = self.window_scores(inputs, data_samples[0].metainfo)
        for index, sample in enumerate(data_samples):
            of_sample = [(place, scores[index:index + 1]) for place, scores in windows]
            sample.pred_sem_seg = PixelData(data=self._label_map(of_sample, size, sample.metainfo))
        return data_samples

    def window_scores(self, inputs: Tensor, meta: dict) -> tuple[tuple[int, int], list[tuple[tuple, Tensor]]]:
        """Scores of images (N, 3, H, W) before they are upsampled.

        Args:
            meta: of the first image.

        Returns:
            (height, width) of what the windows lie in, and of each window its place, as indices of (N, C, H, W), and
            its scores (N, classes, h, w). Whole images are one window.
        """
        if self.test_cfg.get('mode', 'whole') == 'slide':
            return inputs.shape[2:], [
                (place, scores) for places, crops in self._windows(inputs) for place, scores in
                zip(places, self.decode_head(self.extract_feat(crops)).split(len(inputs)), strict=True)]
        size = tuple(meta.get('pad_shape', meta['img_shape'])[:2])  # as decode heads choose it
        return size, [((..., slice(0, size[0]), slice(0, size[1])), self.decode_head(self.extract_feat(inputs)))]

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Class scores (N, classes, H, W) of images (N, 3, H, W): the mean over all windows that see a pixel."""
        batch, _, height, width = inputs.shape
        scores = inputs.new_zeros((batch, self.out_channels, height, width))
        counts = inputs.new_zeros((1, 1, height, width))
        for places, crops in self._windows(inputs):
            # decode heads resize their scores to the first img_shape
            metas = [{**meta, 'img_shape': crops.shape[2:]} for meta in batch_img_metas] * len(places)
            for place, found in zip(places, self.encode_decode(crops, metas).split(batch), strict=True):
                scores[place] += found
                counts[place] += 1
        return scores / counts

    def _windows(self, inputs: Tensor) -> Iterator[tuple[list[tuple], Tensor]]:
        """Places of some windows, as indices of (N, C, H, W), and their pixels, one after the other in a batch."""
        sides = inputs.shape[2:]
        crop = [min(*pair) for pair in zip(self.test_cfg.crop_size, sides, strict=True)]
        corners = list(product(*map(window_starts, sides, self.test_cfg.crop_size, self.test_cfg.stride)))
        together = self.test_cfg.get('windows') or (8 if inputs.is_cuda else 1)
        for start in range(0, len(corners), together):
            places = [(..., slice(y, y + crop[0]), slice(x, x + crop[1])) for y, x in corners[start:start + together]]
            yield places, torch.cat([inputs[place] for place in places])

    def scores_are_upsampled(self) -> bool:
        """Whether the decode head only upsamples its scores, and the best of several wins."""
        head = type(self.decode_head)
        return (self.out_channels > 1 and head.predict is BaseDecodeHead.predict
                and head.predict_by_feat is BaseDecodeHead.predict_by_feat)

    def _label_map(self, windows: Sequence[tuple[tuple, Tensor]], size: Sequence[int], meta: dict) -> Tensor:
        """Labels (1, height, width) of an image at its original size, from the scores (1, classes, h, w) of windows."""
        best = labels = None
        for start in range(0, self.out_channels, CLASSES_TOGETHER):
            found = self._to_original(self._mean_scores(windows, size, start), meta)
            score, label = found.max(dim=1)
            if best is None:
                best, labels = score, label
            else:  # of equal scores the first class wins, as with argmax
                better = score > best
                labels = torch.where(better, label + start, labels)
                best = torch.where(better, score, best)
        return labels

    def _mean_scores(self, windows: Sequence[tuple[tuple, Tensor]], size: Sequence[int], start: int) -> Tensor:
        """Scores (1, up to 32, H, W) of some classes: those of all windows, upsampled and averaged."""
        total = None
        for place, scores in windows:
            part = scores[:, start:start + CLASSES_TOGETHER].contiguous(memory_format=torch.channels_last)
            window_size = [index.stop - index.start for index in place[1:]]
            part = F.interpolate(part, size=window_size, mode='bilinear', align_corners=self.align_corners)
            if len(windows) == 1:
                return part
            if total is None:
                total = part.new_zeros((1, part.shape[1], *size)).contiguous(memory_format=torch.channels_last)
                counts = part.new_zeros((1, 1, *size))
            total[place] += part
            counts[place] += 1
        return total.div_(counts)

    def _to_original(self, scores: Tensor, meta: dict) -> Tensor:
        """Scores (1, C, H, W) of a padded, flipped, resized image at the size of the original, as mmseg does it."""
        left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', [0] * 4))
        scores = scores[:, :, top:scores.shape[2] - bottom, left:scores.shape[3] - right]
        if meta.get('flip'):
            scores = scores.flip(3 if meta['flip_direction'] == 'horizontal' else 2)
        if scores.shape[2:] == tuple(meta['ori_shape']):  # bilinear interpolation to the same size changes nothing
            return scores
        return F.interpolate(scores, size=meta['ori_shape'], mode='bilinear', align_corners=self.align_corners)
