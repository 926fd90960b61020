# The ConvNeXt-T recipe with one step of the road from ResNet-50 to ConvNeXt, from random weights. Not published.
# model.backbone.step names another step; from inverted_bottleneck on, the widths are these.
_base_ = './upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py'

model = dict(backbone=dict(_delete_=True, type='RoadmapNet', step='kernel_7', drop_path_rate=0.4, channels_last=True))
