# Published: 44.8 mIoU (DINOv3's model card).
_base_ = ['_base_/linear_convnext.py', '_base_/ade20k_512x512_plain.py', '_base_/schedule_linear_40k.py',
          '_base_/runtime.py']

model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='dinov3_convnext_small')),
    decode_head=dict(in_channels=768))
