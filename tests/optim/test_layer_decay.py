"""The contract of the layer-decay constructor; tests/configs holds it against the official values of every recipe."""
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper
from torch import nn

from convnext_dense.errors import UserError
from convnext_dense.models import ConvNeXt
from convnext_dense.optim import format_groups, parameter_settings

LAYER_WISE = dict(decay_rate=0.5, decay_type='layer_wise')


class Segmentor(nn.Module):
    """A backbone and one head, as small as the rules need."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(8, 2, 1)


class ThreeLayers(nn.Module):
    """A backbone that is not ours but offers the same method."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    def get_layer_depth(self, param_name, prefix=''):
        inside = param_name.startswith(prefix + 'layers.')
        return (int(param_name[len(prefix):].split('.')[1]) if inside else 3), 4


def tiny(**kwargs) -> ConvNeXt:
    return ConvNeXt(dict(depths=[3, 3, 9, 3], channels=[8, 8, 8, 8]), **kwargs)


def test_optimizer_groups_hold_every_parameter_once():
    model = Segmentor(tiny(frozen_stages=1))
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', constructor='LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=0.01, betas=(0.8, 0.9), weight_decay=0.1), paramwise_cfg=LAYER_WISE))
    settings = parameter_settings(model, LAYER_WISE, 0.1)
    seen = {}
    for group in wrapper.optimizer.param_groups:
        assert group['betas'] == (0.8, 0.9)
        for name, param in zip(group['param_names'], group['params'], strict=True):
            assert param is model.get_parameter(name)
            assert name not in seen
            seen[name] = group['lr'], group['weight_decay']
    trainable = {name for name, param in model.named_parameters() if param.requires_grad}
    assert seen.keys() == trainable == settings.keys()
    assert 'backbone.downsample_layers.0.0.weight' not in trainable
    for name, (lr, weight_decay) in seen.items():
        assert (lr, weight_decay) == (0.01 * settings[name].multiplier, settings[name].weight_decay)


def test_equal_settings_are_one_group_of_a_fused_optimizer():
    """Fused where torch has it and the config does not choose; a step is the plain optimizer's."""
    cfg = dict(type='OptimWrapper', constructor='LayerDecayOptimWrapperConstructor',
               optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.1), paramwise_cfg=dict(LAYER_WISE, decay_rate=1.0))
    weights = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = Segmentor(tiny())
        if not fused:
            cfg['optimizer']['fused'] = False
        wrapper = build_optim_wrapper(model, cfg)
        assert [group['fused'] for group in wrapper.optimizer.param_groups] == 2 * [fused]
        assert {group['weight_decay'] for group in wrapper.optimizer.param_groups} == {0.0, 0.1}
        for _ in range(3):
            wrapper.update_params(sum(p.square().sum() for p in model.parameters()))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)
    cfg['optimizer'] = dict(type='Adadelta', lr=0.01, weight_decay=0.1)
    assert 'fused' not in build_optim_wrapper(Segmentor(tiny()), cfg).optimizer.param_groups[0]


def test_model_wrapper_is_seen_through():
    model = Segmentor(tiny())
    wrapped = nn.DataParallel(model)
    cfg = dict(type='OptimWrapper', constructor='LayerDecayOptimWrapperConstructor',
               optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1), paramwise_cfg=LAYER_WISE)
    plain, through = (build_optim_wrapper(m, cfg).optimizer.param_groups for m in (model, wrapped))
    assert [group['param_names'] for group in plain] == [group['param_names'] for group in through]


def test_grn_is_exempt_by_name_whatever_its_shape():
    model = Segmentor(tiny(use_grn=True))
    for name, param in list(model.named_parameters()):
        if '.grn.' in name:  # as the official V2 code stores it
            module = model.get_submodule(name.rpartition('.')[0])
            setattr(module, name.rpartition('.')[2], nn.Parameter(param.detach().reshape(1, 1, 1, -1)))
    grn = {name: setting for name, setting in parameter_settings(model, LAYER_WISE, 0.1).items() if '.grn.' in name}
    assert len(grn) == 2 * 18
    assert {setting.weight_decay for setting in grn.values()} == {0.0}


def test_any_backbone_that_says_its_depth():
    model = Segmentor(ThreeLayers())
    settings = parameter_settings(model, dict(LAYER_WISE, num_layers=2), 0.1)
    assert {name: (s.multiplier, s.weight_decay) for name, s in settings.items()} == {
        'backbone.layers.0.weight': (0.125, 0.1), 'backbone.layers.0.bias': (0.125, 0.0),
        'backbone.layers.1.weight': (0.25, 0.1), 'backbone.layers.1.bias': (0.25, 0.0),
        'backbone.layers.2.weight': (0.5, 0.1), 'backbone.layers.2.bias': (0.5, 0.0),
        'head.weight': (1.0, 0.1), 'head.bias': (1.0, 0.0)}


def test_bare_backbone_has_the_layers_of_the_wrapped_one():
    inside = parameter_settings(Segmentor(tiny()), LAYER_WISE, 0.1)
    bare = parameter_settings(tiny(), LAYER_WISE, 0.1)
    assert bare == {name.removeprefix('backbone.'): s for name, s in inside.items() if name.startswith('backbone.')}


def test_custom_keys_override_and_the_longest_wins():
    keys = {'head': dict(lr_mult=10.0, decay_mult=0.5), 'head.bias': dict(decay_mult=2.0),
            'stages.0': dict(lr_mult=0.1), 'norm': dict(decay_mult=1.0)}
    model = Segmentor(tiny())
    plain, custom = (parameter_settings(model, dict(LAYER_WISE, custom_keys=k), 0.1) for k in ({}, keys))
    assert (custom['head.weight'].multiplier, custom['head.weight'].weight_decay) == (10.0, 0.05)
    assert (custom['head.bias'].multiplier, custom['head.bias'].weight_decay) == (1.0, 0.2)
    name = 'backbone.stages.0.1.pwconv1.weight'
    assert custom[name].multiplier == pytest.approx(plain[name].multiplier / 10)
    assert custom['backbone.norm3.weight'].weight_decay == 0.1 > plain['backbone.norm3.weight'].weight_decay
    assert custom['backbone.stages.3.0.pwconv1.weight'] == plain['backbone.stages.3.0.pwconv1.weight']


@pytest.mark.parametrize('backbone, change, words', [
    (tiny, dict(num_layers=12), ('num_layers is 12', 'ConvNeXt asks for 6')),
    (tiny, dict(num_layers=12, decay_type='stage_wise'), ('num_layers is 12', 'asks for 6')),
    (tiny, dict(decay_rate=1.5), ('decay_rate', '1.5')),
    (tiny, dict(decay_type='blockwise'), ('decay_type', "'blockwise'", "'layer_wise'")),
    (tiny, dict(norm_decay_mult=0.0), ("unknown key 'norm_decay_mult'", 'custom_keys')),
    (tiny, dict(custom_keys={'necc': dict(lr_mult=2.0)}), ("'necc'", 'no parameter')),
    (tiny, dict(custom_keys={'head': dict(lr=2.0)}), ("custom_keys['head']", 'lr_mult')),
    (ThreeLayers, dict(decay_type='stage_wise'), ('ThreeLayers', "'layer_wise'")),
    (nn.Identity, {}, ('get_layer_depth', 'Identity', 'DefaultOptimWrapperConstructor')),
])
def test_what_cannot_be_meant_is_one_sentence(backbone, change, words):
    with pytest.raises(UserError) as error:
        parameter_settings(Segmentor(backbone()), {**LAYER_WISE, **change}, 0.1)
    text = str(error.value)
    assert all(word in text for word in words), text
    assert '\n' not in text


def test_optimizer_must_name_lr_and_weight_decay():
    with pytest.raises(UserError, match='optim_wrapper.optimizer.weight_decay must be given'):
        build_optim_wrapper(Segmentor(tiny()), dict(
            type='OptimWrapper', constructor='LayerDecayOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1.0), paramwise_cfg=LAYER_WISE))


def test_table_adds_up():
    model = Segmentor(tiny(frozen_stages=1))
    lines = format_groups(model, parameter_settings(model, LAYER_WISE, 0.1), 0.02).splitlines()
    cells = [line.split(maxsplit=6) for line in lines[1:-1]]
    trainable = [param for param in model.parameters() if param.requires_grad]
    assert sum(int(row[4]) for row in cells) == len(trainable)
    assert sum(int(row[5].replace(',', '')) for row in cells) == sum(param.numel() for param in trainable)
    for row in cells:
        assert float(row[2]) == pytest.approx(0.02 * float(row[1]), rel=1e-3)
    assert [row[6] for row in cells if 'stages.2' in row[6]] == [
        'downsample_layers.2, stages.2.0-2', 'downsample_layers.2, stages.2.0-2',
        'stages.2.3-5', 'stages.2.3-5', 'stages.2.6-8', 'stages.2.6-8']
    frozen = sum(param.numel() for param in model.parameters()) - sum(param.numel() for param in trainable)
    assert lines[-1].endswith(f'{frozen:,} frozen')


def test_training_moves_layers_by_their_rate():
    """SGD on the sum of all parameters moves each by exactly its learning rate."""
    model = Segmentor(ThreeLayers())
    wrapper = build_optim_wrapper(model, ConfigDict(
        type='OptimWrapper', constructor='LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='SGD', lr=0.1, weight_decay=0.0), paramwise_cfg=LAYER_WISE))
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    wrapper.update_params(sum(param.sum() for param in model.parameters()))
    settings = parameter_settings(model, LAYER_WISE, 0.0)
    for name, param in model.named_parameters():
        step = torch.full_like(param, 0.1 * settings[name].multiplier)
        torch.testing.assert_close(before[name] - param.detach(), step, rtol=1e-4, atol=1e-6)
