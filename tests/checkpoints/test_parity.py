"""Weights of real libraries' models, saved their own way and loaded into ours, give the same features."""
import os
import subprocess

import numpy as np
import pytest
import torch
from random_weights import PARITY, randomise
from safetensors.torch import save_file

from convnext_dense.checkpoints import load_checkpoint
from convnext_dense.models import ARCHITECTURES, ConvNeXt

TOLERANCE = 1e-5  # of features of order 1 to 10, float32
SIZES = ['atto', 'tiny', pytest.param('base', marks=pytest.mark.slow)]


def compare(file, features, image, format, version, size, saved, output_norm=False, arch=None):
    """Load ``file`` into our backbone and compare its maps with ``features``; a row of the table."""
    ours = ConvNeXt(arch or size, use_grn=version == 'V2', output_norm=output_norm).eval()
    load_checkpoint(ours, file)
    with torch.no_grad():
        maps = ours(image)
    assert len(maps) == len(features) == 4
    difference = max((ours - theirs).abs().max().item() for ours, theirs in zip(maps, features, strict=True))
    scale = max(theirs.abs().max().item() for theirs in features)
    assert scale > 0.5, 'features near zero would agree whatever the weights'
    PARITY.append((format, version, size, saved, difference / max(1, scale)))
    assert difference <= TOLERANCE * max(1, scale)


@pytest.mark.parametrize('name, version, dense', [
    ('convnext_v1_dense', 'V1', True), ('convnext_v1_classifier_stages', 'V1', False),
    ('convnext_v2_stages', 'V2', False), ('convnext_v2_fcmae_state_dict', 'V2', False)])
def test_official_vectors(vectors, tiny_arch, tmp_path, name, version, dense):
    state, arrays = vectors(name)
    if 'fcmae' in name:
        arrays = vectors('convnext_v2_stages')[1]  # the same weights
    torch.save({'state_dict' if dense else 'model': state}, tmp_path / 'official.pth')
    format = 'official FCMAE' if 'fcmae' in name else 'official dense' if dense else 'official classifier'
    compare(tmp_path / 'official.pth', [arrays[f'feature_{i}'] for i in range(4)], arrays['input'], format, version,
            'vector', '.pth', dense, tiny_arch)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('version', ['V1', 'V2'])
def test_timm(image, tmp_path, version, size):
    timm = pytest.importorskip('timm')
    model = randomise(timm.create_model(('convnextv2_' if version == 'V2' else 'convnext_') + size))
    with torch.no_grad():
        features = model.forward_intermediates(image, intermediates_only=True)
    torch.save(model.state_dict(), tmp_path / 'timm.pth')
    compare(tmp_path / 'timm.pth', features, image, 'timm', version, size, '.pth')
    save_file(model.state_dict(), tmp_path / 'timm.safetensors')
    compare(tmp_path / 'timm.safetensors', features, image, 'timm', version, size, '.safetensors')


def test_timm_features_only(image, tmp_path):
    timm = pytest.importorskip('timm')
    model = randomise(timm.create_model('convnextv2_atto', features_only=True))
    with torch.no_grad():
        features = model(image)
    torch.save(model.state_dict(), tmp_path / 'timm.pth')
    compare(tmp_path / 'timm.pth', features, image, 'timm features_only', 'V2', 'atto', '.pth')


def test_timm_dinov3(image, tmp_path):
    timm = pytest.importorskip('timm')
    model = randomise(timm.create_model('convnext_tiny.dinov3_lvd1689m', pretrained=False))
    with torch.no_grad():
        features = model.forward_intermediates(image, intermediates_only=True)
    torch.save(model.state_dict(), tmp_path / 'timm.pth')
    compare(tmp_path / 'timm.pth', features, image, 'timm DINOv3', 'V1', 'tiny', '.pth')


def transformers_model(kind, version, size, **more):
    """transformers' ConvNeXt with random weights; ``kind`` is what its class is called after the family."""
    transformers = pytest.importorskip('transformers')
    family = 'ConvNextV2' if version == 'V2' else 'ConvNext'
    depths, dims = ARCHITECTURES[size]
    config = getattr(transformers, f'{family}Config')(depths=list(depths), hidden_sizes=list(dims), **more)
    return randomise(getattr(transformers, f'{family}{kind}')(config))


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('version', ['V1', 'V2'])
def test_transformers_classifier(image, tmp_path, version, size):
    model = transformers_model('ForImageClassification', version, size)
    with torch.no_grad():
        features = model(image, output_hidden_states=True).hidden_states[1:]
    shard = sum(p.numel() for p in model.parameters()) * 4 // 3
    model.save_pretrained(tmp_path, max_shard_size=f'{shard // 1000}KB')
    assert len(list(tmp_path.glob('model-*.safetensors'))) > 1
    compare(tmp_path / 'model.safetensors.index.json', features, image, 'transformers classifier', version, size,
            'sharded safetensors')
    if size == 'atto':
        torch.save(model.state_dict(), tmp_path / 'pytorch_model.bin')
        compare(tmp_path / 'pytorch_model.bin', features, image, 'transformers classifier', version, size, '.bin')


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('version', ['V1', 'V2'])
def test_transformers_backbone(image, tmp_path, version, size):
    model = transformers_model('Backbone', version, size, out_features=['stage1', 'stage2', 'stage3', 'stage4'])
    with torch.no_grad():
        features = model(image).feature_maps
    model.save_pretrained(tmp_path)
    compare(tmp_path / 'model.safetensors', features, image, 'transformers backbone', version, size,
            'save_pretrained', output_norm=True)


def test_transformers_model(image, tmp_path):
    model = transformers_model('Model', 'V1', 'atto')
    with torch.no_grad():
        features = model(image, output_hidden_states=True).hidden_states[1:]
    model.save_pretrained(tmp_path)
    compare(tmp_path / 'model.safetensors', features, image, 'transformers model', 'V1', 'atto', 'save_pretrained')


@pytest.mark.parametrize('size', SIZES[1:])
def test_transformers_dinov3(image, tmp_path, size):
    transformers = pytest.importorskip('transformers')
    if not hasattr(transformers, 'DINOv3ConvNextModel'):
        pytest.skip('this transformers has no DINOv3 ConvNeXt')
    depths, dims = ARCHITECTURES[size]
    model = randomise(transformers.DINOv3ConvNextModel(
        transformers.DINOv3ConvNextConfig(depths=list(depths), hidden_sizes=list(dims))))
    with torch.no_grad():
        # the last hidden state is normalised or pooled in some versions: take the stages themselves
        features, x = [], image
        for stage in (model.model if hasattr(model, 'model') else model).stages:
            x = stage(x)
            features.append(x)
    model.save_pretrained(tmp_path)
    compare(tmp_path / 'model.safetensors', features, image, 'transformers DINOv3', 'V1', size, 'save_pretrained')


@pytest.mark.parametrize('size', SIZES[1:])
def test_torchvision(image, tmp_path, size):
    torchvision = pytest.importorskip('torchvision')
    model = randomise(getattr(torchvision.models, f'convnext_{size}')())
    with torch.no_grad():
        features, x = [], image
        for i, part in enumerate(model.features):
            x = part(x)
            if i % 2:
                features.append(x)
    torch.save(model.state_dict(), tmp_path / 'torchvision.pth')
    compare(tmp_path / 'torchvision.pth', features, image, 'torchvision', 'V1', size, '.pth')


@pytest.mark.parametrize('size', ['atto', pytest.param('tiny', marks=pytest.mark.slow)])
@pytest.mark.parametrize('version', ['V1', 'V2'])
@pytest.mark.parametrize('wrapping', ['plain', 'own run', 'EMA'])
def test_own(image, tmp_path, version, size, wrapping):
    model = randomise(ConvNeXt(size, use_grn=version == 'V2'))
    with torch.no_grad():
        features = model(image)
    state = model.state_dict()
    if wrapping != 'plain':
        state = {f'backbone.{key}': value for key, value in state.items()}
        state = {'meta': {}, 'state_dict': {**state, 'decode_head.conv_seg.bias': torch.zeros(3)}}
    if wrapping == 'EMA':  # mmengine keeps the averaged weights in state_dict, the others in ema_state_dict
        state['ema_state_dict'] = {f'module.{key}': value * 0 for key, value in state['state_dict'].items()}
    torch.save(state, tmp_path / 'own.pth')
    compare(tmp_path / 'own.pth', features, image, f'ours ({wrapping})', version, size, '.pth', output_norm=True)


MMPRETRAIN = """
import sys, numpy as np, torch
from mmpretrain.models import build_classifier, ConvNeXt
version, size, kind, out = sys.argv[1:]
torch.manual_seed(0)
channels = dict(atto=320, tiny=768, base=1024)[size]
grn = dict(use_grn=True, layer_scale_init_value=0.) if version == 'V2' else {}
linear = dict(linear_pw_conv=kind != 'conv')
if kind == 'classifier':
    model = build_classifier(dict(type='ImageClassifier', backbone=dict(type='ConvNeXt', arch=size, **grn),
                                  head=dict(type='LinearClsHead', in_channels=channels, num_classes=7)))
    backbone = model.backbone
else:
    backbone = ConvNeXt(arch=size, out_indices=(0, 1, 2, 3), gap_before_final_norm=False, **linear, **grn)
    model = torch.nn.ModuleDict({'backbone': backbone, 'neck': torch.nn.Linear(2, 2)})
for p in model.parameters():
    p.data = 0.2 + 0.1 * torch.randn_like(p) if p.dim() == 1 else torch.randn_like(p) / p[0].numel() ** 0.5
model.eval()
x = torch.randn(2, 3, 64, 96)
maps = []
with torch.no_grad():
    if kind == 'classifier':
        h = x
        for down, stage in zip(backbone.downsample_layers, backbone.stages):
            h = stage(down(h))
            maps.append(h)
    else:
        maps = backbone(x)
torch.save({'meta': {}, 'state_dict': model.state_dict()}, out + '.pth')
np.savez(out + '.npz', input=x.numpy(), **{f'feature_{i}': m.numpy() for i, m in enumerate(maps)})
"""


@pytest.mark.slow
@pytest.mark.parametrize('size', ['atto', 'tiny', 'base'])
@pytest.mark.parametrize('kind', ['classifier', 'dense', 'conv'])
@pytest.mark.parametrize('version', ['V1', 'V2'])
def test_mmpretrain(tmp_path, version, kind, size):
    """mmpretrain needs transformers 4, so it runs in an environment of its own."""
    python = os.environ.get('CONVNEXT_DENSE_MMPRETRAIN_PYTHON')
    if not python:
        pytest.skip('set CONVNEXT_DENSE_MMPRETRAIN_PYTHON to a python with mmpretrain 1.2 and transformers 4')
    script = tmp_path / 'make.py'
    script.write_text(MMPRETRAIN)
    done = subprocess.run([python, script, version, size, kind, tmp_path / 'mm'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    arrays = {key: torch.from_numpy(value) for key, value in np.load(tmp_path / 'mm.npz').items()}
    compare(tmp_path / 'mm.pth', [arrays[f'feature_{i}'] for i in range(4)], arrays['input'], f'mmpretrain {kind}',
            version, size, '.pth', output_norm=kind != 'classifier')
