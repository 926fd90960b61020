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


def test_nothing_to_fold_is_one_clear_sentence():
    with pytest.raises(ValueError, match='ConvNeXt blocks, and Linear has none'):
        fold_for_inference(nn.Linear(2, 2))
    with pytest.raises(ValueError, match='ConvNeXt has folded ones only'):
        fold_for_inference(fold_for_inference(small()))
