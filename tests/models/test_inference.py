"""Folding keeps the results and leaves nothing to fold."""
import pytest
import torch
from networks import relative_error, small
from torch import nn

from convnext_dense.models import fold_for_inference


@pytest.mark.parametrize('options', [{}, dict(use_grn=True), dict(use_grn=True, layer_scale_init_value=0.5),
                                     dict(drop_path_rate=0.5, output_norm=False)])
def test_folded_network_is_exact_to_float_tolerance(options, figure):
    net = small(**options)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    folded = fold_for_inference(net)
    x = torch.randn(2, 3, 64, 96)
    errors = [relative_error(a, b.detach()) for a, b in zip(folded(x), net.eval()(x), strict=True)]
    figure(f'folded for inference {options}: maps within {max(errors):.1e} (relative)')
    assert max(errors) < 2e-6
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items()), 'the original is untouched'
    names = {name for name, _ in folded.named_parameters()}
    assert not any('gamma' in name and 'grn' not in name or 'grn.beta' in name for name in names)
    assert not any(name.startswith(('stages', 'downsample_layers.1')) and 'norm' in name for name in names)
    assert not folded.training and not any(p.requires_grad for p in folded.parameters())


def test_folding_in_float64_shows_that_only_rounding_differs():
    net = small(use_grn=True, layer_scale_init_value=0.5).double()
    x = torch.randn(1, 3, 64, 64).double()
    for a, b in zip(fold_for_inference(net)(x), net.eval()(x), strict=True):
        assert relative_error(a, b.detach()) < 1e-13


def test_folds_inside_a_larger_model():
    net = small()
    model = nn.ModuleDict(dict(backbone=net, head=nn.Conv2d(8, 2, 1)))
    folded = fold_for_inference(model)
    assert folded.backbone.stages[0][0].gamma is None and torch.equal(folded.head.weight, model.head.weight)


def test_batch_norms_of_neck_and_heads_are_folded():
    """Of mmcv's ConvModule alone, where the norm follows the convolution; other modules are left as they are."""
    bricks = pytest.importorskip('mmcv.cnn').ConvModule
    torch.manual_seed(0)
    bn, gn = dict(type='SyncBN'), dict(type='GN', num_groups=2)
    layers = [bricks(3, 8, 3, norm_cfg=bn), bricks(8, 8, 1, norm_cfg=bn, bias=True, act_cfg=None),
              bricks(8, 8, 3, norm_cfg=dict(type='BN', affine=False)), bricks(8, 8, 3, norm_cfg=gn),
              bricks(8, 8, 3, norm_cfg=bn, order=('norm', 'act', 'conv')), bricks(8, 8, 3),
              bricks(8, 8, 3, norm_cfg=dict(type='BN', track_running_stats=False)),
              nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))]
    head = nn.Sequential(*layers).double()
    for module in head.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight), nn.init.normal_(module.bias)
    model = nn.ModuleDict(dict(backbone=small(), head=head)).eval()
    folded = fold_for_inference(model)
    x = torch.randn(2, 3, 40, 40).double()
    assert relative_error(folded.head(x), head(x).detach()) < 1e-13
    names = [type(layer.norm).__name__ for layer in folded.head[:7]]
    assert names == ['Identity'] * 3 + ['GroupNorm', 'SyncBatchNorm', 'NoneType', 'BatchNorm2d']
    assert isinstance(folded.head[7][1], nn.BatchNorm2d) and isinstance(head[0].norm, nn.SyncBatchNorm)


def test_nothing_to_fold_is_one_clear_sentence():
    with pytest.raises(ValueError, match='ConvNeXt blocks, and Linear has none'):
        fold_for_inference(nn.Linear(2, 2))
    with pytest.raises(ValueError, match='ConvNeXt has folded ones only'):
        fold_for_inference(fold_for_inference(small()))
