"""The text of a new project's config; `Plan` has the decisions.

Every value that comes from data or from a command line is written by `literal`, and none into a comment: data never
becomes code.
"""
from dataclasses import replace
from pathlib import Path
from textwrap import wrap

from .plan import BASES, Plan, base_config

RECIPE_BATCH = 16  # images per step in every published recipe
BATCHES = {'rtmdet': 128}  # and in those of `MODELS` that differ
WARM_UP = 100  # iterations, at most; and at most a tenth of the run


def literal(value) -> str:
    """Python source of a string, number, list or tuple, which `Config.fromfile` reads as an equal value.

    Before mmengine parses a config, it replaces `{{$NAME:default}}`, `{{fileDirname}}` and the like anywhere in the
    text, also in strings; hence `{{` is written in escapes. (Only strings have braces here; dicts are not accepted.)
    """
    return repr(value).replace('{{', r'\x7b\x7b')


def render(plan: Plan, work_dir: Path) -> str:
    """The config file of a plan: base, data, model, schedule, in this order."""
    data, model = (_det_data, _det_model) if plan.task == 'det' else (_seg_data, _seg_model)
    parts = [_head(plan, work_dir), data(plan), model(plan), _schedule(plan)]
    return ''.join(parts)


def _head(plan: Plan, work_dir: Path) -> str:
    train, val = plan.info.splits['train'], plan.info.splits['val']
    if plan.start == 'random':
        small = {'det': ('mask-rcnn_convnext_fpn_small', 'coco_instance'),
                 'seg': ('upernet_convnext_small', 'ade20k_512x512')}[plan.task]
        files = ',\n'.join(f"    'convnext_dense::{plan.task}/_base_/{name}.py'" for name in (*small, 'runtime'))
        base = f'[\n{files},\n]'
    else:
        base = f"'convnext_dense::{base_config(plan.task, plan.arch, plan.model, plan.masks)}'"
    return f'''\
# {len(plan.info.classes)} class(es), {train.images} training and {val.images} validation images.
# Written by tools/new_project.py; everything here may be changed.
{_comment(plan.reasons)}_base_ = {base}

work_dir = {literal(str(work_dir))}
data_root = {literal(f'{plan.data_root}/')}
classes = {_tuple(plan.info.classes)}
palette = {_tuple([tuple(colour) for colour in plan.info.palette])}
'''


def _comment(reasons: tuple[str, ...]) -> str:
    """Sentences as comment lines of at most 120 characters."""
    lines = [line for reason in reasons for line in wrap(reason, 116, initial_indent='- ', subsequent_indent='  ')]
    return ''.join(f'# {line}\n' for line in lines)


def _tuple(names: list) -> str:
    """A tuple as source, in lines of about 100 characters."""
    lines, line = [], ''
    for name in names:
        text = literal(name)
        if line and len(line) + len(text) > 100:
            lines.append(line.rstrip())
            line = ''
        line += f'{text}, '
    lines.append(line.rstrip())
    return f'({lines[0]})' if len(lines) == 1 else '(\n    ' + '\n    '.join(lines) + '\n)'


def _det_data(plan: Plan) -> str:
    train, val = plan.info.splits['train'], plan.info.splits['val']
    load = f"dict(type='FastLoadAnnotations', with_bbox=True, with_mask={plan.masks})"
    metric = ['bbox', 'segm'] if plan.masks else ['bbox']
    return f'''
scale = {plan.scale}  # of the input: long and short side at most, in pixels
train_pipeline = [
    {load_image(plan)},
    {load},
    dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.25), keep_ratio=True),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='FastPackDetInputs'),
]
test_pipeline = [
    {load_image(plan)},
    dict(type='Resize', scale=scale, keep_ratio=True),
    {load},
    dict(type='FastPackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
dataset = dict(metainfo=dict(classes=classes, palette=palette), data_root=data_root)
train_dataloader = dict(
    batch_size={plan.batch},
    num_workers={plan.workers},
    dataset=dict(
        **dataset,
        ann_file={literal(train.ann_file)},
        data_prefix=dict(img={literal(train.img_prefix)}),
        filter_cfg=dict(filter_empty_gt=True, min_size=8),
        pipeline=train_pipeline))
val_dataloader = dict(
    num_workers={plan.workers},
    dataset=dict(
        **dataset,
        ann_file={literal(val.ann_file)},
        data_prefix=dict(img={literal(val.img_prefix)}),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + {literal(val.ann_file)}, metric={metric}{_counted(plan)})
test_evaluator = val_evaluator
'''


def load_image(plan: Plan) -> str:
    """The transform that reads images; values of more than 8 bits need the range of the data set."""
    value_range = plan.info.value_range
    if value_range is None:
        return "dict(type='LoadImageFromFile')"
    return f"dict(type='LoadImageWithRange', value_range={literal(tuple(value_range))})"


def _det_model(plan: Plan) -> str:
    if plan.model is not None:
        return _other_det_model(plan)
    cascade = plan.start != 'random' and BASES['det'][plan.arch].startswith('cascade')
    box_head = ('[dict(head, num_classes=len(classes)) for head in _base_.model.roi_head.bbox_head]' if cascade
                else 'dict(num_classes=len(classes))')
    mask_head = 'mask_head=dict(num_classes=len(classes))'
    kind = ''
    if not plan.info.has_masks:
        mask_head = 'mask_head=None, mask_roi_extractor=None'  # boxes only
        kind = '' if cascade else "\n    type='FasterRCNN',"
    return f'''
model = dict({kind}{_backbone(plan)}{_anchors(plan)}
    roi_head=dict(
        bbox_head={box_head},
        {mask_head}){_limits(plan)})
{_load_from(plan)}'''


def _other_det_model(plan: Plan) -> str:
    """The model of `MODELS`: its heads' classes, and images padded to the largest of a batch."""
    if plan.model == 'mask2former':
        return f'''
model = dict({_backbone(plan)}
    data_preprocessor=dict(batch_augments=None),
    panoptic_head=dict(
        num_things_classes=len(classes), loss_cls=dict(class_weight=[1.0] * len(classes) + [0.1])),
    panoptic_fusion_head=dict(num_things_classes=len(classes)))
{_load_from(plan)}'''
    limits = ''
    if plan.model == 'dino':  # queries are positions of the maps, which the smallest input must have
        queries = min(900, int((0.75 * plan.short / 8) ** 2))
        limits = f'\n    num_queries={queries}, test_cfg=dict(max_per_img={min(300, queries)}),'
    return f'''
model = dict({_backbone(plan)}{limits}
    data_preprocessor=dict(pad_size_divisor=32, pad_mask={plan.masks}),
    bbox_head=dict(num_classes=len(classes)))
custom_hooks = []
{_load_from(plan)}'''


def _counted(plan: Plan) -> str:
    """AP counts 100 detections an image, unless there are objects beyond that."""
    detections = plan.detector.detections if plan.detector else 0
    crowded = detections > 150  # 1.5 times the objects of the fullest image
    return f',\n    proposal_nums=(1, 10, {detections})' if crowded else ''


def _anchors(plan: Plan) -> str:
    anchors = plan.detector and plan.detector.anchors
    if not anchors or anchors == plan.base_detector.anchors:
        return ''
    return (f'\n    rpn_head=dict(anchor_generator=dict(scales={list(anchors.scales)}, '
            f'ratios={list(anchors.ratios)})),')


def _limits(plan: Plan) -> str:
    """The numbers of proposals, samples and detections, where they are not the base's."""
    chosen, base = plan.detector, plan.base_detector
    if not chosen or replace(chosen, anchors=base.anchors) == base:
        return ''
    proposals = f'nms_pre={2 * chosen.proposals}, max_per_img={chosen.proposals}'
    return f''',
    train_cfg=dict(
        rpn=dict(sampler=dict(num={chosen.rpn_samples})),
        rpn_proposal=dict({proposals})),
    test_cfg=dict(rpn=dict({proposals}), rcnn=dict(max_per_img={chosen.detections}))'''


def _seg_data(plan: Plan) -> str:
    train, val = plan.info.splits['train'], plan.info.splits['val']
    info = plan.info
    return f'''
crop_size = ({plan.short}, {plan.short})
scale = ({4 * plan.short}, {plan.short})  # of the input: the short side decides
train_pipeline = [
    {load_image(plan)},
    dict(type='FastLoadAnnotations', reduce_zero_label=False),
    dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='FastRandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='FastPhotoMetricDistortion'),
    dict(type='FastPackSegInputs'),
]
test_pipeline = [
    {load_image(plan)},
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='FastLoadAnnotations', reduce_zero_label=False),  # after Resize: labels keep the image's own size
    dict(type='FastPackSegInputs'),
]
dataset = dict(
    type='BaseSegDataset',
    metainfo=dict(classes=classes, palette=palette),
    data_root=data_root,
    img_suffix={literal(info.img_suffix)},
    seg_map_suffix={literal(info.seg_map_suffix)},
    ignore_index={literal(info.ignore_index)},
    reduce_zero_label=False)
train_dataloader = dict(
    batch_size={plan.batch},
    num_workers={plan.workers},
    dataset=dict(
        _delete_=True,
        **dataset,
        data_prefix=dict(img_path={literal(train.img_prefix)}, seg_map_path={literal(train.seg_prefix)}),
        pipeline=train_pipeline))
val_dataloader = dict(
    num_workers={plan.workers},
    dataset=dict(
        _delete_=True,
        **dataset,
        data_prefix=dict(img_path={literal(val.img_prefix)}, seg_map_path={literal(val.seg_prefix)}),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
'''


def _seg_model(plan: Plan) -> str:
    heads = """decode_head=dict(num_classes=len(classes)),
    auxiliary_head=dict(num_classes=len(classes)),"""
    if plan.model is not None:
        heads = """decode_head=dict(
        num_classes=len(classes), loss_cls=dict(class_weight=[1.0] * len(classes) + [0.1])),"""
    return f'''
model = dict({_backbone(plan)}
    data_preprocessor=dict(size=crop_size),
    {heads}
    # whole images; for ones much larger than the crops: dict(mode='slide', crop_size=crop_size, stride=...)
    test_cfg=dict(_delete_=True, mode='whole'))
{_load_from(plan)}'''


def _backbone(plan: Plan) -> str:
    """The line about the backbone's initial weights, where the base's are not what is wanted."""
    if not plan.loads_detector:
        return ''
    return '\n    backbone=dict(init_cfg=None),  # load_from brings its weights'


def _load_from(plan: Plan) -> str:
    if not plan.loads_detector:
        return ''
    name = BASES[plan.task][plan.arch] if plan.start == 'published' else plan.start
    return ('# Layers whose size depends on the classes keep their initialisation; the log names them.\n'
            f'load_from = {literal(name)}\n')


def _schedule(plan: Plan) -> str:
    best = ", save_best='coco/segm_mAP'" if plan.masks else ''
    warm_up = min(WARM_UP, max(1, plan.iterations // 10))
    if plan.task == 'det':
        interval = max(1, plan.epochs // 10)
        loop = f"dict(type='EpochBasedTrainLoop', max_epochs={plan.epochs}, val_interval={interval})"
        cosine = f'T_max={plan.epochs}, begin=0, end={plan.epochs}, by_epoch=True, convert_to_iter_based=True'
        length = f'{plan.epochs} epochs of {plan.steps_per_epoch} steps'
    else:
        interval = max(1, plan.iterations // 10)
        loop = f"dict(type='IterBasedTrainLoop', max_iters={plan.iterations}, val_interval={interval})"
        cosine = f'T_max={plan.iterations}, begin=0, end={plan.iterations}, by_epoch=False'
        length = f'{plan.epochs} epochs in all'
    return f'''
train_cfg = {loop}  # {length}
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end={warm_up}),
    dict(type='CosineAnnealingLR', eta_min=0.0, {cosine}),
]
{_optimizer(plan)}default_hooks = dict(
    logger=dict(interval={min(50, max(1, plan.steps_per_epoch // 10))}),
    checkpoint=dict(interval={interval}, max_keep_ckpts=2{best}))
'''


def _optimizer(plan: Plan) -> str:
    if plan.start == 'random':
        return ''  # the small base's
    recipe = BATCHES.get(plan.model, RECIPE_BATCH)
    return (f'# the recipe\'s learning rate is for {recipe} images per step; layer decay as in the recipe\n'
            f'optim_wrapper = dict(optimizer=dict(lr=_base_.optim_wrapper.optimizer.lr * {plan.batch} / {recipe}))\n')
