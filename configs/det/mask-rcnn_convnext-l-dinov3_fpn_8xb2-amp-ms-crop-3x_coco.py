# The ConvNeXt-T recipe with ConvNeXt-L from DINOv3's weights. Not published. Drop path of the size's Cascade recipe.
_base_ = './mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.7, init_cfg=dict(checkpoint='dinov3_convnext_large')),
    neck=dict(in_channels=[192, 384, 768, 1536]))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
