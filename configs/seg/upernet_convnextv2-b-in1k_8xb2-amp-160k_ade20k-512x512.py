# Published: 52.1 mIoU multi-scale (V2 paper, table 7). Layer decay, learning rate and drop path were swept ({0.8, 0.9};
# {1e-4, 2e-4, 3e-4}; {0.1, 0.2, 0.3, 0.4}): the values of the V1-B recipe, which lie inside; warm-up, AMP and decay by
# stages as there.
_base_ = './upernet_convnext-b-in1k_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(use_grn=True, layer_scale_init_value=0.0, init_cfg=dict(checkpoint='convnextv2_base_in1k')))
# The V2 paper's test scales. It does not say whether images are flipped; here they are, as in the V1 protocol.
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'][0] = [
    dict(type='Resize', scale=(int(2048 * r), int(512 * r)), keep_ratio=True) for r in (0.75, 0.875, 1.0, 1.125, 1.25)]
