"""How the official configs, in the keys of mmdet 2 and mmseg 0, read in those of mmdet 3 and mmseg 1.

Paths join keys and list indices by dots; ``*`` stands for one of them, ``**`` for one or more. Every value of an
official config matches one line of `TABLES` or of `NO_COUNTERPART`, every value of ours one of `TABLES` or of
`OURS_ONLY`; test_official_configs.py holds both sides to that.
"""
import re

ANY = object()  # whatever the value is

TYPES = {
    'StaticRPNHead': 'RPNHead', 'StaticRoIHead': 'StandardRoIHead', 'StaticCascadeRoIHead': 'CascadeRoIHead',
    'Float32RoIExtractor': 'SingleRoIExtractor',
    'Float32Shared2FCBBoxHead': 'Shared2FCBBoxHead', 'Float32ConvFCBBoxHead': 'ConvFCBBoxHead',
    'Float32FCNMaskHead': 'FCNMaskHead', 'Float32FCNHead': 'FCNHead', 'FastUPerHead': 'UPerHead',
    'FastEncoderDecoder': 'EncoderDecoder', 'FastCocoDataset': 'CocoDataset',
    'LayerDecayOptimWrapperConstructor': 'LearningRateDecayOptimizerConstructor',
    'FastLoadAnnotations': 'LoadAnnotations', 'FastRandomFlip': 'RandomFlip', 'FastRandomCrop': 'RandomCrop',
    'FastPhotoMetricDistortion': 'PhotoMetricDistortion',
    'RandomChoice': 'AutoAugment', 'RandomChoiceResize': 'Resize', 'RandomResize': 'Resize',
    'EpochBasedTrainLoop': 'EpochBasedRunnerAmp', 'IterBasedTrainLoop': 'IterBasedRunnerAmp',
    'LoggerHook': 'CustomizedTextLoggerHook', 'WatchTrainingHook': 'NumClassCheckHook',  # each counts the classes
    'LinearLR': 'linear', 'MultiStepLR': 'step', 'PolyLR': 'poly'}  # our type -> the official one


def plus_one(value):
    """mmengine counts the last iteration of a schedule in."""
    return value + 1


def amp_type(use_fp16: bool) -> str:
    return 'AmpOptimWrapper' if use_fp16 else 'OptimWrapper'


def inside(root: str):
    """A path below a data set's root."""
    return lambda path: path.removeprefix(root)


# (official path, ours or several of ours, what becomes of the value: None for nothing); the first that fits counts
COMMON = [
    ('model.type', 'model.type', None),
    ('model.backbone.type', 'model.backbone.type', None),
    ('model.backbone.in_chans', 'model.backbone.in_channels', None),
    ('model.backbone.depths', 'model.backbone.arch.depths', None),
    ('model.backbone.dims', 'model.backbone.arch.channels', None),
    ('model.backbone.drop_path_rate', 'model.backbone.drop_path_rate', None),
    ('model.backbone.layer_scale_init_value', 'model.backbone.layer_scale_init_value', None),
    ('model.backbone.out_indices', 'model.backbone.out_indices', None),
    ('data.samples_per_gpu', 'train_dataloader.batch_size', None),
    ('data.workers_per_gpu', ['train_dataloader.num_workers', 'val_dataloader.num_workers',
                              'test_dataloader.num_workers'], None),
    ('data.*.type', '*_dataloader.dataset.type', None),
    ('data.*.pipeline.0.type', '*_dataloader.dataset.pipeline.0.type', None),
    ('data.train.pipeline.1.**', 'train_dataloader.dataset.pipeline.1.**', None),
    ('data.*.pipeline.1.img_scale', '*_dataloader.dataset.pipeline.1.scale', None),
    ('data.*.pipeline.1.transforms.0.**', '*_dataloader.dataset.pipeline.1.**', None),
    ('optimizer.constructor', 'optim_wrapper.constructor', None),
    ('optimizer.paramwise_cfg.*', 'optim_wrapper.paramwise_cfg.*', None),
    ('optimizer.*', 'optim_wrapper.optimizer.*', None),
    ('optimizer_config.grad_clip', 'optim_wrapper.clip_grad', None),
    ('optimizer_config.update_interval', 'optim_wrapper.accumulative_counts', None),
    ('optimizer_config.use_fp16', 'optim_wrapper.type', amp_type),
    ('lr_config.warmup', 'param_scheduler.0.type', None),
    ('lr_config.warmup_iters', 'param_scheduler.0.end', plus_one),
    ('lr_config.warmup_ratio', 'param_scheduler.0.start_factor', None),
    ('lr_config.policy', 'param_scheduler.1.type', None),
    ('runner.type', 'train_cfg.type', None),
    ('checkpoint_config.*', 'default_hooks.checkpoint.*', None),
    ('log_config.interval', 'default_hooks.logger.interval', None),
    ('log_config.hooks.0.type', 'default_hooks.logger.type', None),
    ('dist_params.backend', 'env_cfg.dist_cfg.backend', None),
    ('log_level', 'log_level', None),
    ('load_from', 'load_from', None),
    ('resume_from', 'resume', bool),
]
PREPROCESSOR = {
    'mean': 'model.data_preprocessor.mean', 'std': 'model.data_preprocessor.std',
    'to_rgb': 'model.data_preprocessor.bgr_to_rgb'}

DET = [
    *COMMON,
    ('model.neck.**', 'model.neck.**', None),
    ('model.rpn_head.**', 'model.rpn_head.**', None),
    ('model.roi_head.**', 'model.roi_head.**', None),
    # mmdet 2 drops boxes smaller than this where it is above 0, mmdet 3 where it is not negative
    ('model.*.*.min_bbox_size', 'model.*.*.min_bbox_size', lambda size: size if size > 0 else -1),
    ('model.*.*.nms_post', 'model.*.*.max_per_img', None),
    ('model.train_cfg.**', 'model.train_cfg.**', None),
    ('model.test_cfg.**', 'model.test_cfg.**', None),
    ('data.train.pipeline.2.type', 'train_dataloader.dataset.pipeline.2.type', None),
    ('data.train.pipeline.2.flip_ratio', 'train_dataloader.dataset.pipeline.2.prob', None),
    ('data.train.pipeline.3.type', 'train_dataloader.dataset.pipeline.3.type', None),
    ('data.train.pipeline.3.policies.*.*.img_scale', 'train_dataloader.dataset.pipeline.3.transforms.*.*.scales', None),
    ('data.train.pipeline.3.policies.**', 'train_dataloader.dataset.pipeline.3.transforms.**', None),
    *[(f'data.train.pipeline.4.{key}', ours, None) for key, ours in PREPROCESSOR.items()],
    *[(f'data.*.pipeline.1.transforms.2.{key}', ours, None) for key, ours in PREPROCESSOR.items()],
    ('data.train.pipeline.5.size_divisor', 'model.data_preprocessor.pad_size_divisor', None),
    ('data.*.pipeline.1.transforms.3.size_divisor', 'model.data_preprocessor.pad_size_divisor', None),
    ('data_root', ['train_dataloader.dataset.data_root', 'val_dataloader.dataset.data_root',
                   'test_dataloader.dataset.data_root'], None),
    ('data.*.ann_file', '*_dataloader.dataset.ann_file', inside('data/coco/')),
    ('data.*.img_prefix', '*_dataloader.dataset.data_prefix.img', inside('data/coco/')),
    ('evaluation.metric', ['val_evaluator.metric', 'test_evaluator.metric'], None),
    ('lr_config.step', 'param_scheduler.1.milestones', None),
    ('runner.max_epochs', ['train_cfg.max_epochs', 'param_scheduler.1.end'], None),
    ('custom_hooks.0.type', 'default_hooks.watch.type', None),
]

SEG = [
    *COMMON,
    ('model.decode_head.**', 'model.decode_head.**', None),
    ('model.auxiliary_head.**', 'model.auxiliary_head.**', None),
    ('model.train_cfg', 'model.train_cfg', None),
    ('model.test_cfg.**', 'model.test_cfg.**', None),
    ('data.train.pipeline.2.img_scale', 'train_dataloader.dataset.pipeline.2.scale', None),
    *[(f'data.train.pipeline.{i}.**', f'train_dataloader.dataset.pipeline.{i}.**', None) for i in (2, 3, 4, 5)],
    *[(f'data.train.pipeline.6.{key}', ours, None) for key, ours in PREPROCESSOR.items()],
    *[(f'data.*.pipeline.1.transforms.2.{key}', ours, None) for key, ours in PREPROCESSOR.items()],
    *[(f'data.train.pipeline.7.{key}', f'model.data_preprocessor.{key}', None)
      for key in ('size', 'pad_val', 'seg_pad_val')],
    ('data.*.data_root', '*_dataloader.dataset.data_root', lambda root: root + '/'),
    ('data.*.img_dir', '*_dataloader.dataset.data_prefix.img_path', None),
    ('data.*.ann_dir', '*_dataloader.dataset.data_prefix.seg_map_path', None),
    ('log_config.hooks.0.by_epoch', ['log_processor.by_epoch', 'default_hooks.logger.log_metric_by_epoch'], None),
    ('cudnn_benchmark', 'env_cfg.cudnn_benchmark', None),
    ('lr_config.power', 'param_scheduler.1.power', None),
    ('lr_config.min_lr', 'param_scheduler.1.eta_min', None),
    ('lr_config.by_epoch', ['param_scheduler.0.by_epoch', 'param_scheduler.1.by_epoch'], None),
    ('runner.max_iters', 'train_cfg.max_iters', None),
    ('evaluation.interval', 'train_cfg.val_interval', None),
    ('evaluation.metric', ['val_evaluator.iou_metrics', 'test_evaluator.iou_metrics'], lambda metric: [metric]),
]
TABLES = {'det': DET, 'seg': SEG}

# Variables of the official files: each is used at the second path and says nothing of its own.
VARIABLES = {
    'det': {'dataset_type': 'data.train.type', 'train_pipeline': 'data.train.pipeline',
            'test_pipeline': 'data.test.pipeline'},
    'seg': {'dataset_type': 'data.train.type', 'train_pipeline': 'data.train.pipeline',
            'test_pipeline': 'data.test.pipeline', 'data_root': 'data.train.data_root',
            'crop_size': 'data.train.pipeline.3.crop_size', 'norm_cfg': 'model.decode_head.norm_cfg'}}
NORMALIZE = {'det': 'data.train.pipeline.4', 'seg': 'data.train.pipeline.6'}  # what img_norm_cfg is used in

# (official path, its value, why there is nothing of the kind in mmdet 3 and mmseg 1)
NO_COUNTERPART = [
    ('model.pretrained', None, 'the command line gave the weights; model.backbone.init_cfg does'),
    ('model.*.*.nms_across_levels', False, 'mmdet 3 always suppresses level by level'),
    ('data.train.pipeline.3.policies.*.*.multiscale_mode', 'value', 'said by the type RandomChoiceResize'),
    ('data.train.pipeline.3.policies.1.2.override', True, 'allows a second resize, which mmdet 3 always does'),
    ('data.*.pipeline.1.type', 'MultiScaleFlipAug', 'one scale: its steps stand in the pipeline themselves'),
    ('data.*.pipeline.1.flip', False, 'no flip: the pipeline has no such step'),
    ('data.*.pipeline.1.transforms.1.type', 'RandomFlip', 'idle with flip=False'),
    ('data.**.type', 'Normalize', 'model.data_preprocessor does it'),
    ('data.**.type', 'Pad', 'model.data_preprocessor does it'),
    ('data.**.type', 'DefaultFormatBundle', 'PackDetInputs and PackSegInputs do it'),
    ('data.**.type', 'ImageToTensor', 'PackDetInputs and PackSegInputs do it'),
    ('data.**.type', 'Collect', 'PackDetInputs and PackSegInputs do it'),
    ('data.**.keys', ANY, 'PackDetInputs and PackSegInputs take what there is'),
    ('optimizer_config.type', 'DistOptimizerHook', 'the optimizer wrapper steps'),
    ('optimizer_config.coalesce', True, 'how gradients travel: DDP decides'),
    ('optimizer_config.bucket_size_mb', -1, 'how gradients travel: DDP decides'),
    ('workflow', [['train', 1]], 'the training loop validates by val_interval'),
    ('fp16', None, "mmcv's own mixed precision, unused: use_fp16 is apex's"),
]

# (our path, its value, where it comes from)
BOTH_ONLY = [
    ('custom_imports.imports', ['convnext_dense'], 'this package'),
    ('custom_imports.allow_failed_imports', False, 'this package'),
    ('model.backbone.init_cfg.type', 'Pretrained', 'the command line gave the weights'),
    ('model.backbone.init_cfg.checkpoint', ANY, 'held to the published table by test_recipes.py'),
    ('*_dataloader.persistent_workers', True, 'mmdet 2 and mmseg 0 kept workers only in part'),
    ('train_dataloader.sampler.shuffle', True, "shuffle=True of mmdet 2's and mmseg 0's build_dataloader"),
    ('val_dataloader.batch_size', 1, 'test.py and EvalHook: one image a GPU'),
    ('test_dataloader.batch_size', 1, 'test.py and EvalHook: one image a GPU'),
    ('val_dataloader.sampler.type', 'DefaultSampler', 'every image once, in order'),
    ('val_dataloader.sampler.shuffle', False, 'every image once, in order'),
    ('test_dataloader.sampler.type', 'DefaultSampler', 'every image once, in order'),
    ('test_dataloader.sampler.shuffle', False, 'every image once, in order'),
    ('*_dataloader.dataset.pipeline.2.type', 'FastLoadAnnotations', 'evaluation takes ground truth from the sample'),
    ('auto_scale_lr.enable', False, 'a choice of the command line'),
    ('auto_scale_lr.base_batch_size', 16, '8 GPUs x 2 images, held to the published table by test_recipes.py'),
    ('param_scheduler.*.begin', 0, 'both from iteration 0'),
    ('val_cfg.type', 'ValLoop', 'mmengine has a loop for each'),
    ('test_cfg.type', 'TestLoop', 'mmengine has a loop for each'),
    ('default_hooks.checkpoint.max_keep_ckpts', 3, 'disk space'),
    ('default_hooks.checkpoint.save_best', ANY, 'keeps the best as well'),
    ('default_hooks.checkpoint.rule', 'greater', 'keeps the best as well'),
    ('default_hooks.checkpoint.type', 'SafeCheckpointHook', 'the runner of mmcv 1 registered it itself'),
    ('default_hooks.timer.type', 'IterTimerHook', 'the runner of mmcv 1 registered it itself'),
    ('default_hooks.param_scheduler.type', 'ParamSchedulerHook', 'the runner of mmcv 1 registered it itself'),
    ('default_hooks.sampler_seed.type', 'DistSamplerSeedHook', 'the runner of mmcv 1 registered it itself'),
    ('default_hooks.visualization.type', ANY, 'pictures, where a run asks for them'),
    ('custom_hooks', [], 'a place for more'),
    ('env_cfg.tf32', True, "torch's default before 1.12, and that of the official code, which required 1.8"),
    ('env_cfg.mp_cfg.mp_start_method', 'fork', "mmcv's default on Linux"),
    ('env_cfg.mp_cfg.opencv_num_threads', 0, 'workers are processes'),
    ('visualizer.**', ANY, 'the log'),
    ('log_processor.**', ANY, 'the log'),
    ('default_scope', ANY, 'mmengine: the package that types belong to'),
    ('model.backbone.channels_last', True, 'memory layout; the numbers are the same'),
]
OURS_ONLY = {
    'det': [
        *BOTH_ONLY,
        ('model.data_preprocessor.type', 'FastDetDataPreprocessor', 'Normalize and Pad of the pipeline'),
        ('model.data_preprocessor.pad_mask', True, "mmdet 2's Pad padded masks too"),
        ('train_dataloader.sampler.type', 'DefaultSampler', "with the batch sampler mmdet 2's GroupSampler"),
        ('train_dataloader.batch_sampler.type', 'AspectRatioBatchSampler',
         'images of one orientation a batch: GroupSampler, the default of mmdet 2'),
        ('train_dataloader.dataset.filter_cfg.filter_empty_gt', True, "default of mmdet 2's CocoDataset"),
        ('train_dataloader.dataset.filter_cfg.min_size', 32, "default of mmdet 2's CocoDataset"),
        ('train_dataloader.dataset.pipeline.4.type', 'FastPackDetInputs', 'DefaultFormatBundle and Collect'),
        ('*_dataloader.drop_last', False, 'every image once'),
        ('*_dataloader.dataset.test_mode', True, 'EvalHook and test.py set it'),
        ('*_dataloader.dataset.pipeline.2.with_bbox', True, 'evaluation takes ground truth from the sample'),
        ('*_dataloader.dataset.pipeline.2.with_mask', True, 'evaluation takes ground truth from the sample'),
        ('*_dataloader.dataset.pipeline.3.type', 'FastPackDetInputs', 'ImageToTensor and Collect'),
        ('*_dataloader.dataset.pipeline.3.meta_keys', ['img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'],
         'what evaluation needs of an image'),
        ('*_evaluator.type', 'FastCocoMetric', 'EvalHook and the data set evaluated'),
        ('*_evaluator.ann_file', 'data/coco/annotations/instances_val2017.json', "data.val.ann_file and data.test's"),
        ('param_scheduler.0.by_epoch', False, 'warm-up of mmcv 1 counts iterations'),
        ('param_scheduler.1.by_epoch', True, 'default of lr_config'),
        ('param_scheduler.1.gamma', 0.1, 'default of the step policy'),
        ('train_cfg.val_interval', 1, 'default of evaluation.interval'),
        ('env_cfg.cudnn_benchmark', False, 'default of mmdet 2'),
    ],
    'seg': [
        *BOTH_ONLY,
        ('model.data_preprocessor.type', 'FastSegDataPreProcessor', 'Normalize and Pad of the pipeline'),
        ('param_scheduler.1.end', 160001, 'runner.max_iters, which mmengine counts in'),
        ('train_dataloader.sampler.type', 'InfiniteSampler', 'IterBasedRunner starts anew when the data end'),
        ('train_dataloader.dataset.pipeline.2.keep_ratio', True, "default of mmseg 0's Resize"),
        ('train_dataloader.dataset.pipeline.6.type', 'FastPackSegInputs', 'DefaultFormatBundle and Collect'),
        ('*_dataloader.dataset.pipeline.2.reduce_zero_label', True, "mmseg 0's ADE20KDataset has it in its labels"),
        ('*_dataloader.dataset.pipeline.3.type', 'FastPackSegInputs', 'ImageToTensor and Collect'),
        ('default_hooks.watch.type', 'WatchTrainingHook', 'ours; mmseg 0 had no NumClassCheckHook'),
        ('*_evaluator.type', 'FastIoUMetric', 'EvalHook and the data set evaluated'),
        ('tta_model.type', 'SegTTAModel', 'test.py --aug-test, held to the published table by test_recipes.py'),
        ('tta_pipeline.**', ANY, 'test.py --aug-test, held to the published table by test_recipes.py'),
    ]}


def matcher(pattern: str) -> re.Pattern:
    """A path with wildcards as a regular expression, one group a wildcard."""
    tokens = {'**': '(.+)', '*': '([^.]+)'}
    return re.compile(''.join(tokens.get(part, re.escape(part)) for part in re.split(r'(\*\*|\*)', pattern)))


def translated(path: str, pattern: str, target: str) -> str | None:
    """``path`` in our keys by one line of a table, or None where the line is of another path."""
    match = matcher(pattern).fullmatch(path)
    if match is None:
        return None
    found = iter(match.groups())
    return re.sub(r'\*\*|\*', lambda _: next(found), target)
