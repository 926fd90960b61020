# Not published. Drop path as in the official Mask2Former on Swin-T; short sides of 256 to 1024 pixels there, too.
_base_ = ['_base_/mask2former_convnext.py', '_base_/ade20k_512x512.py', '_base_/schedule_mask2former_160k.py',
          '_base_/runtime.py']

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.3, init_cfg=dict(checkpoint='convnext_tiny_in1k')),
    decode_head=dict(in_channels=[96, 192, 384, 768]))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=6))
