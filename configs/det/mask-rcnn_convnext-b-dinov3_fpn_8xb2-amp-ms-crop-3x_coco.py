# The ConvNeXt-T recipe with ConvNeXt-B from DINOv3's weights. Not published. Drop path of the size's Cascade recipe.
_base_ = './mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.7, init_cfg=dict(checkpoint='dinov3_convnext_base')),
    neck=dict(in_channels=[128, 256, 512, 1024]))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
