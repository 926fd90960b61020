# Published: 52.9 box AP, 46.6 mask AP (V2 paper, table 6).
# Layer decay and drop path were swept ({0.9, 0.95}; {0.2, 0.3, 0.4, 0.5}); 0.95, 0.4, the warm-up and AMP are those of
# mmdet's projects/ConvNeXt-V2, which reports 52.9 and 46.4 for them.
_base_ = ['_base_/mask-rcnn_convnext_fpn.py', '_base_/coco_instance_lsj.py', '_base_/schedule_3x.py',
          '_base_/runtime.py']

model = dict(
    backbone=dict(arch='base', use_grn=True, layer_scale_init_value=0.0, drop_path_rate=0.4,
                  init_cfg=dict(checkpoint='convnextv2_base_fcmae')),
    neck=dict(in_channels=[128, 256, 512, 1024]),
    test_cfg=dict(rcnn=dict(nms=dict(type='soft_nms'))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(decay_rate=0.95, num_layers=12))
auto_scale_lr = dict(base_batch_size=32)  # 8 x 4
