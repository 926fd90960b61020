# The ConvNeXt-B recipe from DINOv3's weights. Not published.
_base_ = './upernet_convnext-b-in1k_8xb2-amp-160k_ade20k-512x512.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='dinov3_convnext_base')))
