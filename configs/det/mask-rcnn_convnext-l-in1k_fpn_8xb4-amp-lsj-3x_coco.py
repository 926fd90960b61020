# Published: 50.6 box AP, 45.1 mask AP (V2 paper, table 6, its V1 baseline). Drop path as for V2-L.
_base_ = './mask-rcnn_convnextv2-l-fcmae_fpn_8xb4-amp-lsj-3x_coco.py'

model = dict(
    backbone=dict(use_grn=False, layer_scale_init_value=1.0, init_cfg=dict(checkpoint='convnext_large_in1k')))
