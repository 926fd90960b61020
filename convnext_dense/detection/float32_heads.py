"""Heads whose outputs are float32, so that boxes are decoded and losses computed in float32.

Casting a head's outputs once is what ``force_fp32`` on each of mmdet 2's functions that read them comes to: ``loss``,
``get_bboxes`` and Cascade R-CNN's ``refine_bboxes``. Parameters and float32 results are those of mmdet's heads.
"""
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead, Shared2FCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class Float32RPNHead(RPNHead):
    """mmdet's RPNHead with float32 scores and box deltas; mmdet 3 takes the type of its anchors from them, too."""

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Objectness (N, anchors, H, W) and box deltas (N, 4 * anchors, H, W) of one level, in float32."""
        scores, deltas = super().forward_single(x)
        return scores.float(), deltas.float()


class Float32Outputs:
    """Makes a box head return float32 scores and box deltas; comes before the head's class."""

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Scores (n, classes + 1) and box deltas (n, 4 or 4 * classes) of n RoIs in float32; None where left out."""
        return tuple(None if output is None else output.float() for output in super().forward(x))


@MODELS.register_module()
class Float32Shared2FCBBoxHead(Float32Outputs, Shared2FCBBoxHead):
    """mmdet's Shared2FCBBoxHead with float32 outputs."""


@MODELS.register_module()
class Float32ConvFCBBoxHead(Float32Outputs, ConvFCBBoxHead):
    """mmdet's ConvFCBBoxHead with float32 outputs."""


@MODELS.register_module()
class Float32FCNMaskHead(FCNMaskHead):
    """mmdet's FCNMaskHead with float32 mask logits."""

    def forward(self, x: Tensor) -> Tensor:
        """Mask logits (n, classes, 28, 28) of n RoIs in float32."""
        return super().forward(x).float()
