"""Every published row: the merged config says what the row says, and the model is the published one."""
import functools
import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import LinearLR, MultiStepLR, PolyLR
from rows import ROWS, config_path, load_row

from convnext_dense.checkpoints import zoo
from convnext_dense.datasets.transforms import stock_pipeline
from convnext_dense.optim import parameter_settings
from convnext_dense.recipes.model_info import build_on_meta, model_info, published_input

# what a row says about its result; metafile.yml has these, and test_metafile.py checks them
RESULTS = {'box_map', 'mask_map', 'miou', 'miou_ms_flip', 'finetuned_url', 'params', 'flops'}
DATASETS = {'CocoDataset': 'COCO 2017', 'ADE20KDataset': 'ADE20K'}
DETECTORS = {'MaskRCNN': ('Mask R-CNN', 'mask'), 'CascadeRCNN': ('Cascade Mask R-CNN', 'cascade-mask')}


def plain(value):
    """A config value as JSON would hold it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def describe(cfg: Config) -> dict:
    """A merged config in the words of a published row."""
    task = {'mmdet': 'det', 'mmseg': 'seg'}[cfg.default_scope]
    backbone, optimizer = cfg.model.backbone, cfg.optim_wrapper.optimizer
    built, pretrain = build_on_meta(cfg).backbone, backbone.init_cfg.checkpoint
    assert cfg.val_dataloader.batch_size == cfg.test_dataloader.batch_size == 1
    assert backbone.type == 'ConvNeXt' and backbone.init_cfg.type == 'Pretrained'
    assert cfg.optim_wrapper.type in ('AmpOptimWrapper', 'OptimWrapper')
    assert cfg.optim_wrapper.constructor == 'LayerDecayOptimWrapperConstructor'
    row = dict(
        task=task, dataset=DATASETS[cfg.train_dataloader.dataset.type], arch=backbone.arch, depths=built.depths,
        dims=built.dims, pretrain=pretrain.rpartition('_')[2], pretrained_url=zoo.find(pretrain).url,
        batch=f'{cfg.auto_scale_lr.base_batch_size // cfg.train_dataloader.batch_size} GPUs x '
              f'{cfg.train_dataloader.batch_size} images',
        optimizer=optimizer.type, betas=optimizer.betas, lr=optimizer.lr, weight_decay=optimizer.weight_decay,
        **{key: cfg.optim_wrapper.paramwise_cfg[key] for key in ('decay_type', 'decay_rate', 'num_layers')},
        drop_path_rate=backbone.drop_path_rate, layer_scale_init_value=backbone.layer_scale_init_value,
        amp_fp16=cfg.optim_wrapper.type == 'AmpOptimWrapper', grad_clip=cfg.optim_wrapper.clip_grad,
        flops_input=published_input(cfg),
        normalisation=dict(mean=cfg.model.data_preprocessor.mean, std=cfg.model.data_preprocessor.std,
                           channel_order='RGB' if cfg.model.data_preprocessor.bgr_to_rgb else 'BGR'))
    return plain({**row, **(describe_det(cfg) if task == 'det' else describe_seg(cfg))})


def describe_det(cfg: Config) -> dict:
    warmup, steps = cfg.param_scheduler
    assert (warmup.type, steps.type, steps.by_epoch) == ('LinearLR', 'MultiStepLR', True)
    method, head = DETECTORS[cfg.model.type]
    rcnn = cfg.model.test_cfg.rcnn
    assert [step.type for step in cfg.test_pipeline] == [
        'LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackDetInputs']
    return dict(
        method=method, head=head,
        schedule=f'{cfg.train_cfg.max_epochs // 12}x: {cfg.train_cfg.max_epochs} epochs, lr x{steps.gamma} after '
                 f'epochs {steps.milestones[0]} and {steps.milestones[1]}',
        warmup=f'linear; {warmup.end} iterations from {warmup.start_factor} x lr',
        train_augmentation=describe_det_augmentation(cfg),
        test=dict(scale=cfg.test_pipeline[1].scale, keep_ratio=cfg.test_pipeline[1].keep_ratio, flip=False,
                  score_thr=rcnn.score_thr, nms_iou=rcnn.nms.iou_threshold, max_per_image=rcnn.max_per_img),
        box_heads=describe_box_heads(cfg.model))


def describe_det_augmentation(cfg: Config) -> dict:
    load, annotations, flip, choice, pack = cfg.train_dataloader.dataset.pipeline
    assert (load.type, annotations.type, flip.type, choice.type, pack.type) == (
        'LoadImageFromFile', 'LoadAnnotations', 'RandomFlip', 'RandomChoice', 'PackDetInputs')
    assert 'prob' not in choice  # policies are equally likely

    def words(step):
        if step.type == 'RandomChoiceResize':
            return dict(resize_choice=step.scales, keep_ratio=step.keep_ratio)
        assert step.type == 'RandomCrop'
        return dict(random_crop=step.crop_type, size=step.crop_size, allow_negative_crop=step.allow_negative_crop)

    return dict(flip=flip.prob, policies=[[words(step) for step in policy] for policy in choice.transforms],
                pad_size_divisor=cfg.model.data_preprocessor.pad_size_divisor)


def describe_box_heads(model: dict) -> dict:
    heads = model.roi_head.bbox_head
    if model.type == 'MaskRCNN':
        assert (heads.type, heads.loss_bbox.type, heads.fc_out_channels) == ('Shared2FCBBoxHead', 'L1Loss', 1024)
        return dict(stages=1, type='2 shared fully connected layers (1024)',
                    loss=f'L1, weight {heads.loss_bbox.loss_weight:g}', class_agnostic=heads.reg_class_agnostic,
                    target_stds=heads.bbox_coder.target_stds)
    first = heads[0]
    for head in heads:  # the stages differ in nothing but the box coder
        assert {**head, 'bbox_coder': None} == {**first, 'bbox_coder': None}
        assert (head.loss_bbox.type, head.reg_decoded_bbox, head.type) == ('GIoULoss', True, 'ConvFCBBoxHead')
    return dict(stages=len(heads),
                type=f'{first.num_shared_convs} shared convolutions + {first.num_shared_fcs} fully connected layer '
                     f'({first.fc_out_channels})',
                norm=first.norm_cfg.type, loss=f'GIoU, weight {first.loss_bbox.loss_weight:g}, on decoded boxes',
                class_agnostic=first.reg_class_agnostic, target_stds=[h.bbox_coder.target_stds for h in heads],
                stage_loss_weights=model.roi_head.stage_loss_weights,
                iou_thresholds=[stage.assigner.pos_iou_thr for stage in model.train_cfg.rcnn])


def describe_seg(cfg: Config) -> dict:
    warmup, poly = cfg.param_scheduler
    assert (warmup.type, poly.type, poly.begin, poly.eta_min) == ('LinearLR', 'PolyLR', 0, 0.0)
    assert cfg.model.type == 'EncoderDecoder' and cfg.model.decode_head.type == 'UPerHead'
    decode, aux = cfg.model.decode_head, cfg.model.auxiliary_head
    assert (aux.type, decode.num_classes, aux.num_classes, decode.norm_cfg) == ('FCNHead', 150, 150, aux.norm_cfg)
    crop = cfg.train_dataloader.dataset.pipeline[3].crop_size
    assert cfg.model.data_preprocessor.size == crop
    resize = cfg.test_pipeline[1]
    return dict(
        method='UPerNet', head='upernet', crop=crop[0],
        schedule=f'{cfg.train_cfg.max_iters // 1000}k iterations, poly power {poly.power} to {poly.eta_min:g}, linear '
                 f'warm-up {warmup.end} iterations from {warmup.start_factor:.0e} x lr'.replace('e-06', 'e-6'),
        single_scale_test=cfg.model.test_cfg, multi_scale_test=describe_tta(cfg), head_norm=decode.norm_cfg.type,
        auxiliary=dict(type='FCN', input_stage=aux.in_index, channels=aux.channels, convs=aux.num_convs,
                       loss_weight=aux.loss_decode.loss_weight),
        decode=dict(channels=decode.channels, pool_scales=decode.pool_scales, dropout=decode.dropout_ratio),
        train_augmentation=describe_seg_augmentation(cfg.train_dataloader.dataset.pipeline),
        test=dict(scale=resize.scale, keep_ratio=resize.keep_ratio))


def describe_seg_augmentation(pipeline: list) -> dict:
    load, labels, resize, crop, flip, distort, pack = pipeline
    assert (load.type, resize.keep_ratio, pack.type) == ('LoadImageFromFile', True, 'PackSegInputs')
    return dict(resize=resize.scale, ratio_range=resize.ratio_range, random_crop=crop.crop_size,
                cat_max_ratio=crop.cat_max_ratio, flip=flip.prob,
                photometric_distortion=distort.type == 'PhotoMetricDistortion',
                reduce_zero_label=labels.reduce_zero_label)


def describe_tta(cfg: Config) -> dict:
    resizes, flips, labels, _ = cfg.tta_pipeline[1].transforms
    width, height = cfg.test_pipeline[1].scale
    ratios = [resize.scale[0] / width for resize in resizes]
    assert [resize.scale[1] / height for resize in resizes] == ratios and all(r.keep_ratio for r in resizes)
    assert labels[0].reduce_zero_label and cfg.tta_model.type == 'SegTTAModel'
    # whole images: the tester sets model.test_cfg.mode, see convnext_dense/reproduce.py
    return dict(mode='whole', flip=[flip.prob for flip in flips] == [0.0, 1.0], ratios=ratios)


@functools.cache
def facts(name: str) -> SimpleNamespace:
    """What a row's config turns into, made once for all tests."""
    cfg = load_row(next(row for row in ROWS if row['name'] == name))
    settings = parameter_settings(
        build_on_meta(cfg), cfg.optim_wrapper.paramwise_cfg, cfg.optim_wrapper.optimizer.weight_decay)
    # our transforms under the names of those whose results they return, which tests/datasets/test_fast_recipes.py shows
    stock = Config(stock_pipeline(cfg.to_dict()), filename=cfg.filename)
    return SimpleNamespace(said=describe(stock), settings=settings, info=model_info(cfg))


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['name'])
def test_config_equals_row(row):
    said = dict(facts(row['name']).said)
    if row['task'] == 'det':  # the row's prose: which of the two known warm-ups is meant
        assert '500 iterations from 0.001 x lr' in row['warmup']
        assert said.pop('warmup') == 'linear; 500 iterations from 0.001 x lr'
        row = {key: value for key, value in row.items() if key != 'warmup'}
    expected = {key: value for key, value in row.items() if key not in RESULTS | {'name'}}
    assert said.keys() == expected.keys()
    for key, value in expected.items():
        assert said[key] == value, key


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['name'])
def test_layer_decay_equals_official_for_every_parameter(row, official_layer_decay):
    """Names are the official ones also in the heads: mmdet 3 and mmseg 1 kept those of mmdet 2 and mmseg 0."""
    official, settings = official_layer_decay[row['name']], facts(row['name']).settings
    assert settings.keys() == official.keys()
    for name, (multiplier, weight_decay) in official.items():
        # the reference is rounded to ten digits
        assert settings[name].multiplier == pytest.approx(multiplier, rel=0, abs=5.1e-11), name
        assert settings[name].weight_decay == weight_decay, name


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['name'])
def test_parameters_and_flops_are_the_published_ones(row):
    info = facts(row['name']).info
    assert f'{info["params"] / 1e6:.0f}M' == row['params']
    assert info['flops'] / 1e9 == pytest.approx(float(row['flops'].rstrip('G')), rel=2e-3)
    assert info['params'] == sum(part['params'] for part in info['parts'].values())
    assert info['flops'] == sum(part['flops'] for part in info['parts'].values())


@pytest.mark.parametrize('name', ['mask-rcnn_convnext-t-in1k', 'cascade-mask-rcnn_convnext-t-in1k',
                                  'upernet_convnext-t-in1k_ade20k-512x512'])
def test_state_dict_is_that_of_the_official_checkpoint(name, official_keys):
    row = next(row for row in ROWS if row['name'] == name)
    ours = {key: list(value.shape) for key, value in build_on_meta(load_row(row)).state_dict().items()}
    assert ours == official_keys[name]


def scheduled_lr(cfg: Config, steps: int, steps_per_epoch: int) -> list[float]:
    """The learning rate before each step, by mmengine's own schedulers, for a base of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    kinds = dict(LinearLR=LinearLR, MultiStepLR=MultiStepLR, PolyLR=PolyLR)
    schedulers = [kinds[s.type](optimizer, **{k: v for k, v in s.items() if k != 'type'}) for s in cfg.param_scheduler]
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (step + 1) % steps_per_epoch == 0:
                scheduler.step()
    return rates


def test_segmentation_schedule_is_the_official_product():
    """poly(i) * warmup(i), both from iteration 0; mmengine counts the ends in, hence 1/1500 at most between them."""
    rates = scheduled_lr(load_row(ROWS[-1]), 160000, 1)
    for i in [*range(0, 1600, 7), *range(1600, 160000, 997), 159999]:
        warmup = min(1.0, 1 - (1 - i / 1500) * (1 - 1e-6))
        assert math.isclose(rates[i], warmup * (1 - i / 160000), rel_tol=0, abs_tol=1 / 1500), i


def test_detection_schedule_steps_where_the_official_one_does():
    per_epoch = 100
    rates = scheduled_lr(load_row(ROWS[0]), 36 * per_epoch, per_epoch)
    for i, rate in enumerate(rates):
        warmup = min(1.0, 1 - (1 - i / 500) * (1 - 0.001))
        drops = (i >= 27 * per_epoch) + (i >= 33 * per_epoch)
        assert math.isclose(rate, warmup * 0.1 ** drops, rel_tol=0, abs_tol=1 / 500), i


def test_summary(capsys, official_layer_decay):
    """One line per row, as the tests above hold it."""
    lines = [f'{"recipe":40} fields  lr multipliers   params (M)  published  FLOPs (G)  published']
    for row in ROWS:
        said, settings, info = vars(facts(row['name'])).values()
        fields = [said[key] == value for key, value in row.items() if key not in RESULTS | {'name', 'warmup'}]
        official = official_layer_decay[row['name']]
        equal = sum(abs(settings[name].multiplier - mult) < 5.1e-11 and settings[name].weight_decay == decay
                    for name, (mult, decay) in official.items())
        lines.append(f'{row["name"]:40} {sum(fields):2}/{len(fields):2}   {equal:4}/{len(official):4}       '
                     f'{info["params"] / 1e6:9.2f}  {row["params"]:>9}  {info["flops"] / 1e9:9.1f}  {row["flops"]:>9}')
        assert all(fields) and equal == len(official) == len(settings), lines[-1]
    with capsys.disabled():
        print('\n' + '\n'.join(lines))


def test_leaves_are_short_and_only_these():
    paths = {config_path(row) for row in ROWS}
    assert len(paths) == 13
    for path in paths:
        assert len(path.read_text().splitlines()) <= 15, path
