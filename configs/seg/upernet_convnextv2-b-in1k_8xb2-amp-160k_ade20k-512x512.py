# V2-B, masked pre-training then ImageNet-1K, in the V1-B recipe: V2's own recipe is not published.
_base_ = './upernet_convnext-b-in1k_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(use_grn=True, layer_scale_init_value=0.0, init_cfg=dict(checkpoint='convnextv2_base_in1k')))
