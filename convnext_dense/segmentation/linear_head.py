"""Linear evaluation of a backbone's features, as DINOv3 publishes it."""
from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor

from .float32_loss import Float32Loss


@MODELS.register_module()
class LinearHead(Float32Loss, BaseDecodeHead):
    """Dropout, batch norm and a 1x1 convolution on one feature map.

    DINOv3's linear head (dinov3/eval/segmentation/models/heads/linear_head.py), in this order.

    Args:
        in_channels: of the feature map.
        dropout_ratio: probability that training drops a channel of a sample.
        norm_cfg: of the batch norm.
        **kwargs: as for mmseg's decode heads.
    """

    def __init__(self, in_channels: int, dropout_ratio: float = 0.1, norm_cfg: dict | None = None, **kwargs):
        norm_cfg = norm_cfg or dict(type='SyncBN', requires_grad=True)
        super().__init__(in_channels=in_channels, channels=in_channels, dropout_ratio=dropout_ratio,
                         norm_cfg=norm_cfg, **kwargs)
        _, self.norm = build_norm_layer(norm_cfg, in_channels)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (N, classes, H, W) of the map that ``in_index`` names, at that map's size."""
        x = self._transform_inputs(inputs)
        if self.dropout is not None:
            x = self.dropout(x)
        return self.conv_seg(self.norm(x))
