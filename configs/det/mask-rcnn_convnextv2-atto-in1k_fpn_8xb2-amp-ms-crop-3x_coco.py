# The ConvNeXt-T recipe with the smallest V2, for small machines. Not published.
_base_ = './mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        arch='atto', use_grn=True, layer_scale_init_value=0.0, drop_path_rate=0.1,
        init_cfg=dict(checkpoint='convnextv2_atto_in1k')),
    neck=dict(in_channels=[40, 80, 160, 320]))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=5))  # depths (2, 2, 6, 2): 3 + 6 / 3
