# V2-B, masked pre-training then ImageNet-1K, in the V1-B recipe. V2's own settings are published as ranges that were
# searched (its paper's appendix: lr 1e-4 to 3e-4, layer decay 0.8 or 0.9, drop path 0.1 to 0.4), not as values.
_base_ = './upernet_convnext-b-in1k_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(use_grn=True, layer_scale_init_value=0.0, init_cfg=dict(checkpoint='convnextv2_base_in1k')))
