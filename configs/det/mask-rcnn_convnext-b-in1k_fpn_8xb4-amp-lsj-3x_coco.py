# Published: 50.3 box AP, 44.9 mask AP (V2 paper, table 6, its V1 baseline).
_base_ = './mask-rcnn_convnextv2-b-fcmae_fpn_8xb4-amp-lsj-3x_coco.py'

model = dict(
    backbone=dict(use_grn=False, layer_scale_init_value=1.0, init_cfg=dict(checkpoint='convnext_base_in1k')))
