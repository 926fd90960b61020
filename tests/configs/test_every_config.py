"""Every config in the tree builds in full, trains one step and predicts once on a CPU.

In full means on the meta device. The step and the prediction use 64x96 images, few proposals, and for the sizes
above tiny one block per stage (with the published widths).
"""
import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from rows import ROOT

from convnext_dense.architectures import ARCHITECTURES
from convnext_dense.config import load_config
from convnext_dense.recipes.model_info import build_on_meta

PATHS = sorted((ROOT / 'configs').glob('*/*.py'))
LEAVES = [path for path in PATHS if path.parent.name != '_base_']
SMALL = ('-t-in1k', 'atto')
FAST = ('mask-rcnn_convnext-t-', 'upernet_convnext-t-')
HEIGHT, WIDTH = 64, 96


def leaf_params() -> list:
    return [pytest.param(path, id=path.stem, marks=() if path.stem.startswith(FAST) else pytest.mark.slow)
            for path in LEAVES]


def shrink(cfg: Config) -> Config:
    """The same model at a size that a CPU trains in a second or two."""
    model = cfg.model
    model.backbone.init_cfg = None
    depth_is_full = any(word in Path(cfg.filename).stem for word in SMALL) or model.backbone.type != 'ConvNeXt'
    if not depth_is_full:
        model.backbone.arch = dict(depths=[1, 1, 1, 1], channels=list(ARCHITECTURES[model.backbone.arch][1]))
        cfg.optim_wrapper.get('paramwise_cfg', {}).pop('num_layers', None)
    if cfg.default_scope == 'mmseg':
        model.data_preprocessor.size = (HEIGHT, WIDTH)
        if model.test_cfg.mode == 'slide':
            model.test_cfg.update(crop_size=(64, 64), stride=(43, 43))
    if 'rpn_head' in model:
        stages = model.train_cfg.rcnn if isinstance(model.train_cfg.rcnn, list) else [model.train_cfg.rcnn]
        for stage in [model.train_cfg.rpn, *stages]:
            stage.sampler.num = 16
        for proposals in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
            proposals.update(nms_pre=50, max_per_img=20)
    shrink_transformer(model)
    return cfg


def shrink_transformer(model: dict) -> None:
    """One layer each in encoder and decoder, few queries and points, no padding to the recipe's size."""
    model.data_preprocessor.pop('batch_augments', None)
    if model.type == 'DINO':
        model.num_queries = 20
        model.encoder.num_layers = model.decoder.num_layers = 1
    for head in (model.get('panoptic_head'), model.get('decode_head')):
        if head is not None and 'Mask2Former' in head.type:
            head.num_queries = 10
            head.pixel_decoder.encoder.num_layers = head.transformer_decoder.num_layers = 1
            (head.get('train_cfg') or model.train_cfg).num_points = 100


def num_classes(cfg: Config) -> int:
    model = cfg.model
    if cfg.default_scope == 'mmseg':
        return model.decode_head.num_classes
    if 'panoptic_head' in model:
        return model.panoptic_head.num_things_classes + model.panoptic_head.num_stuff_classes
    heads = model.roi_head.bbox_head if 'roi_head' in model else model.bbox_head
    return (heads[0] if isinstance(heads, list) else heads).num_classes


def has_masks(cfg: Config) -> bool:
    return 'segm' in str(cfg.val_evaluator)


def random_batch(cfg: Config) -> dict:
    """Two images as a data loader hands them over, with two objects each or a label map."""
    rng = np.random.default_rng(0)
    inputs = [torch.from_numpy(rng.integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)) for _ in range(2)]
    meta = dict(img_shape=(HEIGHT, WIDTH), ori_shape=(HEIGHT, WIDTH), scale_factor=(1.0, 1.0), img_path='random')
    samples = []
    for _ in inputs:
        if cfg.default_scope == 'mmseg':
            from mmseg.structures import SegDataSample
            sample = SegDataSample(metainfo=meta)
            labels = torch.from_numpy(rng.integers(0, num_classes(cfg), (1, HEIGHT, WIDTH)))
            sample.gt_sem_seg = PixelData(data=labels)
        else:
            from mmdet.structures import DetDataSample
            from mmdet.structures.bbox import HorizontalBoxes
            from mmdet.structures.mask import BitmapMasks
            masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
            masks[0, 8:40, 8:40], masks[1, 16:60, 44:90] = 1, 1
            sample = DetDataSample(metainfo=meta)
            sample.gt_instances = InstanceData(
                bboxes=HorizontalBoxes(torch.tensor([[8., 8, 40, 40], [44, 16, 90, 60]])),
                labels=torch.from_numpy(rng.integers(0, num_classes(cfg), 2)))
            if has_masks(cfg):
                sample.gt_instances.masks = BitmapMasks(masks, HEIGHT, WIDTH)
            sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
            if cfg.model.get('panoptic_fusion_head', {}).get('num_stuff_classes'):
                labels = torch.from_numpy(rng.integers(80, num_classes(cfg), (1, HEIGHT, WIDTH)))
                sample.gt_sem_seg = PixelData(sem_seg=labels)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_builds_in_full(path):
    """Config, model at its real size, every transform, and an optimizer over every trainable parameter."""
    cfg = load_config(str(path))
    model = build_on_meta(cfg).train()
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
    wrapper.pop('dtype', None)
    groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
    trained = [param for group in groups for param in group['params'] if param.requires_grad]
    trainable = {id(param) for param in model.parameters() if param.requires_grad}
    assert {id(param) for param in trained} == trainable and len(trained) == len(trainable)
    from mmengine.dataset import Compose
    for key in ('train_pipeline', 'test_pipeline', 'tta_pipeline'):
        if key in cfg:
            assert len(Compose(cfg[key]).transforms) == len(cfg[key])


@pytest.mark.parametrize('path', leaf_params())
def test_trains_a_step_and_predicts(path):
    torch.manual_seed(0)
    cfg = shrink(load_config(str(path)))
    init_default_scope(cfg.default_scope)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    batch = random_batch(cfg)

    model.train()
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    total, logged = model.parse_losses(losses)
    total.backward()
    assert all(torch.isfinite(value) for value in logged.values()), logged
    assert total > 0
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)

    model.eval()
    with torch.no_grad():
        samples = model(**model.data_preprocessor(random_batch(cfg)), mode='predict')
    assert len(samples) == 2
    for sample in samples:
        if cfg.default_scope == 'mmseg':
            labels = sample.pred_sem_seg.data
            assert labels.shape == (1, HEIGHT, WIDTH) and 0 <= labels.min() and labels.max() < num_classes(cfg)
            scores = sample.seg_logits.data  # argmax of the finite scores is the prediction
            assert torch.isfinite(scores).all() and torch.equal(scores.argmax(0, keepdim=True), labels)
        else:
            found, limits = sample.pred_instances, cfg.model.test_cfg.get('rcnn', cfg.model.test_cfg)
            assert len(found) <= limits.get('max_per_img', limits.get('max_per_image'))
            assert not has_masks(cfg) or found.masks.shape == (len(found), HEIGHT, WIDTH)
            assert ('pred_panoptic_seg' in sample) == bool(limits.get('panoptic_on'))
            x1, y1, x2, y2 = found.bboxes.unbind(1)
            assert bool(((0 <= x1) & (x1 <= x2) & (x2 <= WIDTH) & (0 <= y1) & (y1 <= y2) & (y2 <= HEIGHT)).all())
            assert bool(((0 <= found.labels) & (found.labels < num_classes(cfg))).all())


def values(node: dict, prefix: str = '') -> dict:
    """Dotted key -> value of nested dicts; lists are values."""
    found = {}
    for key, value in node.items():
        found |= values(value, f'{prefix}{key}.') if isinstance(value, dict) else {f'{prefix}{key}': value}
    return found


def test_leaves_hold_only_their_delta(tmp_path):
    """No leaf says what the bases that it names say already."""
    for path in LEAVES:
        tree, own = ast.parse(path.read_text()), {}
        tree.body = [line for line in tree.body if '_base_.' not in ast.unparse(line)
                     and isinstance(getattr(line, 'targets', [None])[0], ast.Name)]  # all but changes of a base's value
        exec(compile(tree, path, 'exec'), {}, own)
        bases = own.pop('_base_')
        bases = [str((path.parent / base).resolve()) for base in (bases if isinstance(bases, list) else [bases])]
        (tmp_path / path.name).write_text(f'_base_ = {bases}')
        inherited = values(Config.fromfile(tmp_path / path.name).to_dict())
        own = {key: value for key, value in own.items() if not key.startswith('_') and '_delete_' not in str(value)}
        repeated = [key for key, value in values(own).items() if key in inherited and inherited[key] == value]
        # rates differ between entries: each leaf names its own
        assert set(repeated) <= {'optim_wrapper.optimizer.lr'}, path.name


def algorithm_of(cfg: Config) -> str:
    """First field of a config's name."""
    model = cfg.model
    head = (model.get('decode_head') or model.get('bbox_head') or {}).get('type')
    return {'FastUPerHead': 'upernet', 'Float32Mask2FormerHead': 'mask2former', 'LinearHead': 'linear',
            'Float32RTMDetInsSepBNHead': 'rtmdet-ins'}.get(head) or {
        'MaskRCNN': 'mask-rcnn', 'CascadeRCNN': 'cascade-mask-rcnn'}.get(model.type) or model.type.lower()


def test_names_follow_the_grammar():
    """algorithm_model_training-settings_dataset, the fields that mmdet's documentation names, algorithm first."""
    for path in LEAVES:
        algorithm, model, *rest = path.stem.split('_')
        cfg = Config.fromfile(path)
        assert algorithm == algorithm_of(cfg), path.name
        gpus, batch = next(field for field in rest if 'xb' in field).split('-')[0].split('xb')
        if 'auto_scale_lr' in cfg:
            assert int(batch) == cfg.train_dataloader.batch_size, path.name
            assert int(gpus) * int(batch) == cfg.auto_scale_lr.base_batch_size, path.name
        fields = '-'.join(rest).split('-')
        assert ('amp' in fields) == (cfg.optim_wrapper.type == 'AmpOptimWrapper'), path.name
