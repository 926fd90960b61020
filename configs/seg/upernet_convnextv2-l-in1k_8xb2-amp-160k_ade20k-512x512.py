# Published: 53.7 mIoU multi-scale (V2 paper, table 7). Swept settings as for V2-B.
_base_ = './upernet_convnextv2-b-in1k_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint='convnextv2_large_in1k')),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768))
