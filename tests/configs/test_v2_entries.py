"""The entries of the V2 paper (tables 6 and 7): published metrics in the metafile, published size when built."""
import json

import pytest
from rows import ROOT

from convnext_dense.checkpoints import zoo
from convnext_dense.config import load_config
from convnext_dense.recipes.metafile import load_recipes
from convnext_dense.recipes.model_info import model_info

PUBLISHED = json.loads((ROOT / 'tests/data/reference/published_recipes_v2.json').read_text())
SIZES = {'base': 'b', 'large': 'l', 'huge': 'h'}


def config_name(task: str, row: dict) -> str | None:
    """The config of a row of table 6 or 7; None for V2 without FCMAE, of which no weights are published, and for V1
    segmentors, which are in the V1 tables but for L at 512."""
    size, version = SIZES[row['arch']], 'convnextv2' if row['version'] == 'V2' else 'convnext'
    if task == 'det':
        pretraining = 'in1k' if row['version'] == 'V1' else 'fcmae' if row['pretraining'] == 'fcmae' else None
        return pretraining and f'mask-rcnn_{version}-{size}-{pretraining}_fpn_8xb4-amp-lsj-3x_coco'
    if row['version'] == 'V1' or row['pretraining'] == 'supervised':
        return None
    pretraining = 'in22k' if '22K' in row['pretraining'] else 'in1k'
    return f'upernet_{version}-{size}-{pretraining}_8xb2-amp-160k_ade20k-{row["crop"]}x{row["crop"]}'


ENTRIES = [(name, row) for task, table in (('det', 'coco'), ('seg', 'ade20k')) for row in PUBLISHED[table]['rows']
           if (name := config_name(task, row))]


def test_there_are_nine():
    assert len(ENTRIES) == 9


@pytest.mark.parametrize('name, row', ENTRIES, ids=[name for name, _ in ENTRIES])
def test_metafile_has_the_published_metrics(name, row):
    recipe = next(recipe for recipe in load_recipes() if recipe.config.endswith(f'/{name}.py'))
    expected = {'box AP': row['box_ap'], 'mask AP': row['mask_ap']} if recipe.task == 'det' \
        else {'mIoU(ms+flip)': row['miou_ms']}
    assert recipe.metrics == expected
    assert f'{recipe.flops}G' == row['flops'] and f'{recipe.params}M' == row.get('params', 'NoneM')


@pytest.mark.parametrize('name, row', ENTRIES, ids=[name for name, _ in ENTRIES])
def test_settings_are_published_or_inside_the_sweep(name, row):
    task, table = ('det', 'coco') if 'coco' in name else ('seg', 'ade20k')
    settings = PUBLISHED[table]['settings']
    cfg = load_config(f'{task}/{name}.py')
    optimizer, swept = cfg.optim_wrapper.optimizer, settings['swept']
    assert (optimizer.type, optimizer.weight_decay) == (settings['optimizer'], settings['weight_decay'])
    assert optimizer.lr == settings['lr'] if task == 'det' else optimizer.lr in swept['lr']
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate in swept['layer_wise_decay']
    assert cfg.model.backbone.drop_path_rate in swept['drop_path']
    assert cfg.auto_scale_lr.base_batch_size == settings['batch']
    assert cfg.model.backbone.arch == row['arch'] \
        and bool(cfg.model.backbone.get('use_grn')) == (row['version'] == 'V2')
    weights = zoo.find(cfg.model.backbone.init_cfg.checkpoint)
    assert row['arch'] in weights.name \
        and weights.name.startswith('convnextv2' if row['version'] == 'V2' else 'convnext_')
    if task == 'det':
        assert cfg.train_cfg.max_epochs == settings['epochs'] and cfg.model.test_cfg.rcnn.nms.type == 'soft_nms'
        assert 'fcmae' in weights.name if row['pretraining'] == 'fcmae' else 'in1k' in weights.name
    else:
        assert cfg.train_cfg.max_iters == settings['iterations']
        side = row['crop']
        scales = [transform['scale'] for transform in cfg.tta_pipeline[1].transforms[0]]
        assert scales == [(int(4 * side * r), int(side * r)) for r in (0.75, 0.875, 1.0, 1.125, 1.25)]


@pytest.mark.slow
@pytest.mark.parametrize('name, row', ENTRIES, ids=[name for name, _ in ENTRIES])
def test_built_model_has_the_published_size(name, row):
    info = model_info(load_config(f'{"det" if "coco" in name else "seg"}/{name}.py'))
    assert info['flops'] == pytest.approx(float(row['flops'].rstrip('G')) * 1e9, rel=0.002)
    if 'params' in row:
        assert info['params'] == pytest.approx(float(row['params'].rstrip('M')) * 1e6, rel=0.005)
