# The ConvNeXt-B recipe at 512 with ConvNeXt-L from DINOv3's weights. Not published.
_base_ = './upernet_convnext-b-in1k_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint='dinov3_convnext_large')),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768))
