# The ConvNeXt-T recipe with ConvNeXt-S from DINOv3's weights. Not published. Drop path of the size's Cascade recipe.
_base_ = './mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(arch='small', drop_path_rate=0.6, init_cfg=dict(checkpoint='dinov3_convnext_small')))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
