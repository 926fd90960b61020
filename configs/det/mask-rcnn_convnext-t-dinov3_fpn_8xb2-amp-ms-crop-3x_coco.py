# The ConvNeXt-T recipe from DINOv3's weights. Not published.
_base_ = './mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='dinov3_convnext_tiny')))
