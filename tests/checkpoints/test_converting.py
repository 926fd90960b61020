"""Conversions are read by the real libraries, and round trips give back every tensor bit by bit."""
import json

import pytest
import torch
from random_weights import ROUND_TRIPS, randomise
from tool_runs import must_run, run_tool

from convnext_dense.checkpoints import load_checkpoint, read_checkpoint
from convnext_dense.checkpoints.converting import convert, convert_file
from convnext_dense.checkpoints.formats import recognise
from convnext_dense.checkpoints.reading import find_state_dict
from convnext_dense.errors import UserError
from convnext_dense.models import ConvNeXt

SIZES = ['atto', *(pytest.param(size, marks=pytest.mark.slow) for size in ('tiny', 'base'))]


def official_classifier(size, version):
    state = randomise(ConvNeXt(size, use_grn=version == 'V2', output_norm=False)).state_dict()
    width = state['stages.3.0.dwconv.bias'].shape[0]
    return {**state, 'norm.weight': torch.rand(width), 'norm.bias': torch.rand(width),
            'head.weight': torch.rand(5, width), 'head.bias': torch.rand(5)}


def dense_backbone(size, version):
    return randomise(ConvNeXt(size, use_grn=version == 'V2')).state_dict()


def assert_same(left, right):
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype and torch.equal(left[key], right[key]), key


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('version', ['V1', 'V2'])
@pytest.mark.parametrize('what, path', [
    ('classifier', 'official timm official'), ('classifier', 'official transformers official'),
    ('classifier', 'official timm transformers timm official'), ('dense', 'official transformers official')])
def test_round_trip(tmp_path, what, path, version, size):
    state = official_classifier(size, version) if what == 'classifier' else dense_backbone(size, version)
    torch.save({'model': state}, tmp_path / '0.pth')
    file = tmp_path / '0.pth'
    steps = path.split()[1:]
    for i, to in enumerate(steps):
        suffix = '.pth' if to == 'official' else '.safetensors'
        file = convert_file(file, tmp_path / f'{i + 1}{suffix}', to)
        assert recognise(find_state_dict(read_checkpoint(file), 'x'), 'x').format.name == to
    assert_same(find_state_dict(read_checkpoint(file), 'x'), state)
    ROUND_TRIPS.append((f'{what}: {" > ".join(path.split())}', version, size, len(state), ''))


@pytest.mark.parametrize('version', ['V1', 'V2'])
def test_dense_backbone_to_timm_and_back_loses_only_the_output_norms(tmp_path, version):
    state = dense_backbone('atto', version)
    there = convert(state, 'x', 'timm')
    assert there.left_out == [f'norm{i}.{kind}' for i in range(4) for kind in ('weight', 'bias')]
    back = convert(there.state, 'x', 'official').state
    assert_same(back, {key: value for key, value in state.items() if key not in there.left_out})
    ROUND_TRIPS.append(('dense: official > timm > official', version, 'atto', len(back),
                        '(norm0..3 left out: timm has none)'))


@pytest.mark.parametrize('wrapper', ['timm', 'transformers'])
def test_fcmae_becomes_what_the_official_code_makes_of_it(vectors, wrapper):
    fcmae, _ = vectors('convnext_v2_fcmae_state_dict')
    official, _ = vectors('convnext_v2_stages')  # the same weights, by the official code
    expected = {key: value for key, value in official.items() if not key.startswith(('norm.', 'head.'))}
    there = convert(fcmae, 'x', wrapper).state
    assert_same(convert(there, 'x', 'official').state, expected)
    assert_same(convert(fcmae, 'x', 'official').state, expected)
    ROUND_TRIPS.append((f'FCMAE > {wrapper} > official (official result)', 'V2', 'vector', len(expected), ''))


@pytest.mark.parametrize('version', ['V1', 'V2'])
@pytest.mark.parametrize('size', ['atto', 'tiny'])
def test_timm_takes_a_converted_file(tmp_path, image, version, size):
    timm = pytest.importorskip('timm')
    state = official_classifier(size, version)
    torch.save({'model': state}, tmp_path / 'official.pth')
    convert_file(tmp_path / 'official.pth', tmp_path / 'timm.safetensors', 'timm')
    theirs = timm.create_model(('convnextv2_' if version == 'V2' else 'convnext_') + size, num_classes=5,
                               checkpoint_path=str(tmp_path / 'timm.safetensors')).eval()
    ours = ConvNeXt(size, use_grn=version == 'V2', output_norm=False).eval()
    load_checkpoint(ours, tmp_path / 'official.pth')
    with torch.no_grad():
        for a, b in zip(ours(image), theirs.forward_intermediates(image, intermediates_only=True), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())
    assert torch.equal(theirs.head.fc.weight, state['head.weight'])


@pytest.mark.parametrize('version', ['V1', 'V2'])
def test_timm_takes_a_backbone_trained_here(tmp_path, image, version):
    """As docs/checkpoints.md says it: the file as timm's pretrained weights, for a model without a head."""
    timm = pytest.importorskip('timm')
    ours = randomise(ConvNeXt('atto', use_grn=version == 'V2'))
    torch.save({'state_dict': {f'backbone.{key}': value for key, value in ours.state_dict().items()},
                'meta': {}}, tmp_path / 'run.pth')
    convert_file(tmp_path / 'run.pth', tmp_path / 'timm.safetensors', 'timm')
    theirs = timm.create_model('convnextv2_atto' if version == 'V2' else 'convnext_atto', features_only=True,
                               pretrained=True, pretrained_cfg_overlay=dict(file=str(tmp_path / 'timm.safetensors')))
    for i in range(4):
        setattr(ours, f'norm{i}', torch.nn.Identity())  # timm returns the stages as they are
    with torch.no_grad():
        for a, b in zip(ours(image), theirs.eval()(image), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize('version', ['V1', 'V2'])
@pytest.mark.parametrize('what', ['classifier', 'dense'])
def test_transformers_takes_a_converted_folder(tmp_path, image, version, what):
    transformers = pytest.importorskip('transformers')
    state = official_classifier('atto', version) if what == 'classifier' else dense_backbone('atto', version)
    torch.save({'model': state}, tmp_path / 'official.pth')
    convert_file(tmp_path / 'official.pth', tmp_path / 'hf', 'transformers')
    config = json.loads((tmp_path / 'hf/config.json').read_text())
    theirs, info = getattr(transformers, config['architectures'][0]).from_pretrained(
        str(tmp_path / 'hf'), output_loading_info=True)
    assert not any(info[key] for key in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
    ours = ConvNeXt('atto', use_grn=version == 'V2', output_norm=what == 'dense').eval()
    load_checkpoint(ours, tmp_path / 'official.pth')
    with torch.no_grad():
        maps = theirs.eval()(image, output_hidden_states=True).hidden_states[1:] if what == 'classifier' \
            else theirs.eval()(image).feature_maps
        for a, b in zip(ours(image), maps, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_mmpretrain_detector_becomes_official_with_its_heads(tmp_path):
    state = dense_backbone('atto', 'V1')
    names = {'dwconv': 'depthwise_conv', 'pwconv1': 'pointwise_conv1', 'pwconv2': 'pointwise_conv2'}
    theirs = {}
    for key, value in state.items():
        for ours, mm in names.items():
            key = key.replace(ours, mm)
        theirs[f'backbone.{key}'] = value
    heads = {'neck.lateral_convs.0.conv.bias': torch.rand(3), 'roi_head.bbox_head.fc_cls.bias': torch.rand(4)}
    torch.save({'meta': {}, 'state_dict': {**theirs, **heads}}, tmp_path / 'mm.pth')
    convert_file(tmp_path / 'mm.pth', tmp_path / 'official.pth')
    written = read_checkpoint(tmp_path / 'official.pth')['state_dict']
    assert_same(written, {**{f'backbone.{key}': value for key, value in state.items()}, **heads})


def test_tool(tmp_path):
    torch.save({'model': official_classifier('atto', 'V2')}, tmp_path / 'a.pth')
    must_run('convert_checkpoint', tmp_path / 'a.pth', tmp_path / 'b', '--to', 'transformers')
    assert json.loads((tmp_path / 'b/config.json').read_text())['architectures'] == ['ConvNextV2ForImageClassification']
    assert 'does not exist' in run_tool('convert_checkpoint', tmp_path / 'a.pth', tmp_path / 'no/b.pth').error


def test_destination_is_all_or_nothing(tmp_path):
    torch.save({'model': official_classifier('atto', 'V1')}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match='ends in .pth, .pt or .safetensors'):
        convert_file(tmp_path / 'a.pth', tmp_path / 'a.onnx', 'timm')
    with pytest.raises(UserError, match='no format'):
        convert_file(tmp_path / 'a.pth', tmp_path / 'b.pth', 'keras')
    assert [file.name for file in tmp_path.iterdir()] == ['a.pth']
