# Published: 55.7 box AP, 48.9 mask AP (V2 paper, table 6). Drop path was swept, 0.2 to 0.5: the largest, as for V1-L.
_base_ = './mask-rcnn_convnextv2-b-fcmae_fpn_8xb4-amp-lsj-3x_coco.py'

model = dict(
    backbone=dict(arch='huge', drop_path_rate=0.5, init_cfg=dict(checkpoint='convnextv2_huge_fcmae')),
    neck=dict(in_channels=[352, 704, 1408, 2816]))
