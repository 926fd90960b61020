# What every recipe shares; each task's _base_/runtime.py inherits it and adds its scope, visualiser and metric.
custom_imports = dict(imports=['convnext_dense'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    watch=dict(type='WatchTrainingHook'))
# Empty on purpose, so that one line of a leaf or --cfg-options adds a hook (EMA, for instance).
custom_hooks = []

env_cfg = dict(
    cudnn_benchmark=False,
    tf32=True,  # as torch did before 1.12, when the official models were trained; False: float32 is float32
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

log_level = 'INFO'
load_from = None
resume = False
