"""The network is the official one: official vectors, timm, transformers and published parameter counts."""
import re

import numpy as np
import pytest
import timm
import torch
import transformers
from networks import SMALL, gradients, loss_of, randomize, relative_error

from convnext_dense import ConvNeXt

# Millions of parameters with the 1000-class head. V1: official README and V1 paper, table 1. V2: official README.
V1_PARAMS = {'tiny': 28.6, 'small': 50.2, 'base': 88.6, 'large': 197.8, 'xlarge': 350.2}
V2_PARAMS = {'atto': 3.7, 'femto': 5.2, 'pico': 9.1, 'nano': 15.6, 'tiny': 28.6, 'base': 89, 'large': 198, 'huge': 660}

VECTORS = {
    'convnext_v1_dense': {},
    'convnext_v1_classifier_stages': dict(output_norm=False),
    'convnext_v2_stages': dict(output_norm=False, use_grn=True),
}


@pytest.mark.parametrize('name', VECTORS)
def test_official_vectors(name, reference_dir, figure):
    """Outputs and every gradient within 1e-5 relative of what the official code computed."""
    vectors = np.load(reference_dir / f'vectors/{name}.npz')
    net = ConvNeXt(SMALL, **VECTORS[name])
    state = {key.removeprefix('state_dict/'): torch.from_numpy(vectors[key]) for key in vectors
             if key.startswith('state_dict/')}
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not missing and set(unexpected) <= {'norm.weight', 'norm.bias', 'head.weight', 'head.bias'}

    x = torch.from_numpy(vectors['input'])
    maps = net(x)
    forward = max(relative_error(m, vectors[f'feature_{i}']) for i, m in enumerate(maps))
    assert relative_error(loss_of(maps), vectors['loss']) < 1e-6
    grads = gradients(net, x)
    assert {f'grad/{key}' for key in grads} == {key for key in vectors if key.startswith('grad/')}
    backward = max(relative_error(grad, vectors[f'grad/{key}']) for key, grad in grads.items())
    figure(f'{name}: {len(maps)} maps within {forward:.1e}, {len(grads)} gradients within {backward:.1e} (relative)')
    assert forward < 1e-5 and backward < 1e-5


def from_timm(key: str) -> str:
    key = re.sub(r'^stem_(\d)', r'downsample_layers.0.\1', key)
    key = re.sub(r'^stages_(\d)\.downsample', r'downsample_layers.\1', key)
    key = re.sub(r'^stages_(\d)\.blocks', r'stages.\1', key)
    for old, new in (('conv_dw', 'dwconv'), ('mlp.fc', 'pwconv'), ('mlp.grn.weight', 'grn.gamma'),
                     ('mlp.grn.bias', 'grn.beta')):
        key = key.replace(old, new)
    return key


def from_transformers(key: str) -> str:
    key = re.sub(r'^embeddings\.patch_embeddings', 'downsample_layers.0.0', key)
    key = re.sub(r'^embeddings\.layernorm', 'downsample_layers.0.1', key)
    key = re.sub(r'^encoder\.stages\.(\d)\.downsampling_layer', r'downsample_layers.\1', key)
    key = re.sub(r'^encoder\.stages\.(\d)\.layers', r'stages.\1', key)
    key = re.sub(r'^hidden_states_norms\.stage(\d)', lambda match: f'norm{int(match[1]) - 1}', key)
    for old, new in (('layer_scale_parameter', 'gamma'), ('grn.weight', 'grn.gamma'), ('grn.bias', 'grn.beta')):
        key = key.replace(old, new)
    return key if 'downsample' in key or key.startswith('norm') else key.replace('layernorm', 'norm')


def hf_backbone(version: int):
    prefix = 'ConvNext' if version == 1 else 'ConvNextV2'
    config = getattr(transformers, f'{prefix}Config')(out_features=['stage1', 'stage2', 'stage3', 'stage4'],
                                                      hidden_sizes=[96, 192, 384, 768])  # its own default is a tuple
    return getattr(transformers, f'{prefix}Backbone')(config)


PEERS = {
    'timm V1': (lambda: timm.create_model('convnext_tiny', features_only=True), from_timm, dict(output_norm=False)),
    'timm V2': (lambda: timm.create_model('convnextv2_tiny', features_only=True), from_timm,
                dict(output_norm=False, use_grn=True)),
    'transformers V1': (lambda: hf_backbone(1), from_transformers, {}),
    'transformers V2': (lambda: hf_backbone(2), from_transformers, dict(use_grn=True)),
}


@pytest.mark.parametrize('peer', PEERS)
def test_same_as_peer_at_tiny(peer, figure):
    """Same random weights, same input: same maps and same gradients as an independent implementation."""
    build, rename, options = PEERS[peer]
    torch.manual_seed(0)
    theirs, net = build(), randomize(ConvNeXt('tiny', **options))
    state = net.state_dict()
    ours_of = {key: rename(key) for key in theirs.state_dict()}
    assert sorted(ours_of.values()) == sorted(state), 'every weight of ours has its place in the peer'
    theirs.load_state_dict({key: state[name].reshape(value.shape) for (key, value), name
                            in zip(theirs.state_dict().items(), ours_of.values(), strict=True)})
    theirs.eval(), net.eval()

    x = torch.randn(1, 3, 96, 64)
    their_maps = theirs(x)
    their_maps = getattr(their_maps, 'feature_maps', their_maps)
    forward = max(relative_error(a, b.detach()) for a, b in zip(net(x), their_maps, strict=True))
    loss_of(their_maps).backward()
    expected = {ours_of[key]: param.grad for key, param in theirs.named_parameters()}
    grads = gradients(net, x)
    grads.pop('input')
    backward = max(relative_error(grad.flatten(), expected[key].flatten()) for key, grad in grads.items())
    figure(f'{peer}: maps within {forward:.1e}, {len(grads)} gradients within {backward:.1e} (relative)')
    assert forward < 1e-5 and backward < 1e-4


def classifier_parameters(net: ConvNeXt) -> int:
    dim = net.dims[-1]
    return sum(p.numel() for p in net.parameters()) + 2 * dim + (dim + 1) * 1000


@pytest.mark.parametrize('arch, published, use_grn', [(*item, False) for item in V1_PARAMS.items()]
                         + [(*item, True) for item in V2_PARAMS.items()])
def test_published_parameter_count(arch, published, use_grn, figure):
    with torch.device('meta'):
        millions = classifier_parameters(ConvNeXt(arch, use_grn=use_grn, output_norm=False)) / 1e6
    version = 2 if use_grn else 1
    figure(f'ConvNeXt V{version} {arch}: {millions:.2f} M parameters with classifier, published {published}')
    digits = 0 if isinstance(published, int) else 1
    assert round(millions, digits) == published


def test_classifier_parameter_count_agrees_with_timm():
    """The count above adds norm and head by formula; timm builds them."""
    with torch.device('meta'):
        theirs = timm.create_model('convnext_tiny')
        ours = ConvNeXt('tiny', output_norm=False)
    assert classifier_parameters(ours) == sum(p.numel() for p in theirs.parameters())
