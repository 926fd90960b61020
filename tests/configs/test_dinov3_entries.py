"""DINOv3's linear evaluation on ADE20K as its authors publish it, and the recipes that start from its weights."""
import json

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from rows import ROOT
from torch.nn import functional as F

from convnext_dense.checkpoints import zoo
from convnext_dense.config import load_config
from convnext_dense.recipes.metafile import load_recipes
from convnext_dense.recipes.model_info import build_on_meta

FACTS = json.loads((ROOT / 'tests/data/reference/published_dinov3.json').read_text())['dinov3']
LINEAR = FACTS['linear_evaluation']
ROWS = FACTS['weights']
CHANNELS = {'tiny': 768, 'small': 768, 'base': 1024, 'large': 1536}


def load(name: str):
    return load_config(next((ROOT / 'configs').glob(f'*/{name}.py')).relative_to(ROOT / 'configs').as_posix())


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['size'])
def test_linear_evaluation_is_the_published_one(row):
    cfg = load(f'linear_convnext-{row["size"][0]}-dinov3_8xb2-40k_ade20k-512x512')
    backbone, optimizer = cfg.model.backbone, cfg.optim_wrapper.optimizer
    assert zoo.find(backbone.init_cfg.checkpoint).url == row['url'] and backbone.init_cfg.final_norm
    assert (cfg.train_cfg.max_iters, cfg.auto_scale_lr.base_batch_size) == (LINEAR['iterations'], LINEAR['batch'])
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay, list(optimizer.betas)) == \
        (LINEAR['optimizer'], LINEAR['lr'], LINEAR['weight_decay'], LINEAR['betas'])
    assert cfg.optim_wrapper.clip_grad.max_norm == LINEAR['clip']
    assert cfg.model.test_cfg.to_dict() == dict(
        mode='slide', crop_size=(LINEAR['crop'],) * 2, stride=(LINEAR['stride'],) * 2)
    assert cfg.model.decode_head.dropout_ratio == LINEAR['dropout']
    for ours, theirs in ((cfg.model.data_preprocessor.mean, 'mean'), (cfg.model.data_preprocessor.std, 'std')):
        assert [value / 255 for value in ours] == pytest.approx(LINEAR[theirs])
    transforms = [step['type'] for step in cfg.train_dataloader.dataset.pipeline]
    assert 'FastPhotoMetricDistortion' not in transforms and len(transforms) == 6
    recipe = next(recipe for recipe in load_recipes() if recipe.config.endswith(f'linear_convnext-{row["size"][0]}'
                                                                               '-dinov3_8xb2-40k_ade20k-512x512.py'))
    assert recipe.metrics == {'mIoU': row['linear_miou']}
    model = build_on_meta(cfg).train()
    trained = {name: param.numel() for name, param in model.named_parameters() if param.requires_grad}
    channels = CHANNELS[row['size']]
    assert trained == {'decode_head.conv_seg.weight': 150 * channels, 'decode_head.conv_seg.bias': 150,
                       'decode_head.norm.weight': channels, 'decode_head.norm.bias': channels}
    assert not any(module.training for module in model.backbone.modules() if not list(module.children()))


def test_linear_head_is_batch_norm_and_a_matrix_product():
    init_default_scope('mmseg')
    torch.manual_seed(0)
    head = MODELS.build(dict(type='LinearHead', in_channels=8, in_index=0, num_classes=5, dropout_ratio=0.5,
                             norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss')))
    x = torch.randn(3, 8, 4, 6) * 3 + 1
    head.norm.running_mean.normal_(), head.norm.running_var.uniform_(0.5, 2)
    torch.nn.init.normal_(head.norm.weight), torch.nn.init.normal_(head.norm.bias)
    scaled = (x - head.norm.running_mean.view(-1, 1, 1)) / (head.norm.running_var.view(-1, 1, 1) + 1e-5).sqrt()
    scaled = scaled * head.norm.weight.view(-1, 1, 1) + head.norm.bias.view(-1, 1, 1)
    expected = torch.einsum('nchw,kc->nkhw', scaled, head.conv_seg.weight[:, :, 0, 0]) \
        + head.conv_seg.bias.view(-1, 1, 1)
    torch.testing.assert_close(head.eval()([x]), expected, rtol=1e-5, atol=1e-5)
    torch.manual_seed(1)
    dropped = F.dropout2d(x, 0.5, training=True)  # before the batch norm, whose statistics see it
    expected = 0.9 * head.norm.running_mean + 0.1 * dropped.mean((0, 2, 3))
    torch.manual_seed(1)
    head.train()([x])
    torch.testing.assert_close(head.norm.running_mean, expected)


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['size'])
@pytest.mark.parametrize('kind', ['mask-rcnn', 'upernet'])
def test_fine_tuning_starts_from_its_weights_and_is_not_called_published(kind, row):
    letter = row['size'][0]
    name = f'{kind}_convnext-{letter}-dinov3_' + ('fpn_8xb2-amp-ms-crop-3x_coco' if kind == 'mask-rcnn'
                                                  else '8xb2-amp-160k_ade20k-512x512')
    cfg = load(name)
    assert zoo.find(cfg.model.backbone.init_cfg.checkpoint).url == row['url']
    assert cfg.model.backbone.arch == row['size'] and 'final_norm' not in cfg.model.backbone.init_cfg
    recipe = next(recipe for recipe in load_recipes() if recipe.config.endswith(f'/{name}.py'))
    assert not recipe.metrics and 'not published' in recipe.note and 'gated' in recipe.note
