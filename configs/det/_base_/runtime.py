_base_ = '../../_base_/default_runtime.py'
default_scope = 'mmdet'

default_hooks = dict(
    checkpoint=dict(interval=1, save_best='coco/bbox_mAP', rule='greater'),
    visualization=dict(type='DetVisualizationHook'))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
