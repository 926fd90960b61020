# Not published. Drop path as in the published Mask R-CNN on ConvNeXt-T.
_base_ = ['_base_/rtmdet_convnext.py', '_base_/coco_rtmdet.py', '_base_/schedule_rtmdet_100e.py', '_base_/runtime.py']

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.4, init_cfg=dict(checkpoint='convnext_tiny_in1k')),
    neck=dict(in_channels=[192, 384, 768]))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=6))
custom_hooks = [
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True, priority=49),
    dict(type='PipelineSwitchHook', switch_epoch=90, switch_pipeline=_base_.train_pipeline_stage2),
]
