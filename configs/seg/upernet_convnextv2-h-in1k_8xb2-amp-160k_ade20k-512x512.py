# Published: 55.0 mIoU multi-scale (V2 paper, table 7). Swept settings as for V2-B.
_base_ = './upernet_convnextv2-b-in1k_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='huge', init_cfg=dict(checkpoint='convnextv2_huge_in1k')),
    decode_head=dict(in_channels=[352, 704, 1408, 2816]),
    auxiliary_head=dict(in_channels=1408))
