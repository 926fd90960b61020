"""RoI features from float32 boxes and maps."""
from collections.abc import Sequence

import torch
from mmcv.ops import RoIAlign
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from torch import Tensor

from ..mm import transfer

OUTSIDE = -1e4  # pixels of the image, more than a pixel outside every map


@MODELS.register_module()
class Float32RoIExtractor(SingleRoIExtractor):
    """mmdet's SingleRoIExtractor on float32 features and RoIs; the result has the features' type.

    mmdet 3 rounds RoIs to the features' type. In fp16 the area overflows above 65,504 px², so that an RoI of 256 to
    448 px is pooled at stride 32 instead of 16, and coordinates above 1024 px become whole pixels; in bf16 those
    become multiples of 8. In float32 both extractors are the same.

    A compiled mmcv, whose RoIAlign has no bf16, can train in bf16 with this one. Without gradients nothing is added for
    levels without an RoI; mmdet adds 0 times their sum, so that their parameters have a gradient.
    """

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Pool each RoI from the map of its size.

        Args:
            feats: one (N, C, H, W) map a level, of any floating-point type.
            rois: (n, 5) as image index, x1, y1, x2, y2, in pixels of the input.
            roi_scale_factor: scale RoIs about their centres, after the level is chosen.

        Returns:
            (n, C, size, size) in the type of ``feats``.
        """
        dtype, feats, rois = feats[0].dtype, [feat.float() for feat in feats], rois.float()
        if torch.is_grad_enabled() and transfer.host_would_wait(rois) and 1 < len(feats) and len(rois) and all(
                type(layer) is RoIAlign and layer.pool_mode == 'avg' for layer in self.roi_layers):
            return self.pool_everywhere(feats, rois, roi_scale_factor).to(dtype)
        if torch.is_grad_enabled() or len(feats) == 1 or not len(rois):
            return super().forward(feats, rois, roi_scale_factor).to(dtype)
        levels = self.map_roi_levels(rois, len(feats))
        if roi_scale_factor is not None:
            rois = self.roi_rescale(rois, roi_scale_factor)
        pooled = None
        for level, (layer, feat) in enumerate(zip(self.roi_layers, feats, strict=True)):
            index = (levels == level).nonzero()[:, 0]
            if len(index) == len(rois):
                return layer(feat, rois).to(dtype)
            if len(index):
                found = layer(feat, rois[index])
                pooled = found.new_empty((len(rois), *found.shape[1:])) if pooled is None else pooled
                pooled[index] = found
        return pooled.to(dtype)

    def pool_everywhere(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None) -> Tensor:
        """Pool without waiting for the GPU, as shapes do not depend on values.

        On maps other than its own an RoI has no extent and lies outside, where RoIAlign gives zeros and no gradient.
        """
        import torchvision.ops  # noqa: F401  (registers the operator)
        levels = self.map_roi_levels(rois, len(feats))
        if roi_scale_factor is not None:
            rois = self.roi_rescale(rois, roi_scale_factor)
        own = levels == torch.arange(len(feats), device=rois.device)[:, None]
        corners = torch.where(own[..., None], rois[:, 1:], OUTSIDE)
        of_levels = torch.cat([rois[:, :1].expand(len(feats), -1, -1), corners], 2)
        pooled = None
        for layer, feat, rois in zip(self.roi_layers, feats, of_levels, strict=True):
            # torchvision's operator, which is the same as mmcv's, has its gradient in C++
            found = torch.ops.torchvision.roi_align(feat, rois, layer.spatial_scale, *layer.output_size,
                                                    layer.sampling_ratio, layer.aligned)
            pooled = found if pooled is None else pooled + found
        return pooled
