"""Loading is strict about what matters, says what it did, and never leaves a half-filled model."""
import logging
import re

import pytest
import torch
from mmengine.logging import MMLogger
from random_weights import randomise
from toy import ARCH, Toy

from convnext_dense.checkpoints import load_checkpoint
from convnext_dense.checkpoints.loading import fit_checkpoint
from convnext_dense.errors import UserError
from convnext_dense.models import ConvNeXt


def save(tmp_path, state, wrapper='model'):
    torch.save({wrapper: state} if wrapper else state, tmp_path / 'file.pth')
    return tmp_path / 'file.pth'


def classifier(**kwargs):
    state = randomise(ConvNeXt(ARCH, output_norm=False, **kwargs)).state_dict()
    return {**state, 'norm.weight': torch.rand(40), 'norm.bias': torch.rand(40),
            'head.weight': torch.rand(9, 40), 'head.bias': torch.rand(9)}


@pytest.fixture
def log():
    """What loading says to mmengine's current logger during a test."""
    messages = []

    class Keep(logging.Handler):
        def emit(self, record):
            if 'tensors loaded' in record.getMessage():
                messages.append(record.getMessage())

    handler = Keep()
    MMLogger.get_current_instance().addHandler(handler)
    yield messages
    MMLogger.get_current_instance().removeHandler(handler)


def error_of(model, path, **kwargs):
    """The message of the failing load; the model must come out of it as it went in."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_checkpoint(model, path, **kwargs)
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize('key', ['stages.2.1.pwconv1.bias', 'downsample_layers.0.0.weight', 'stages.0.0.gamma'])
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_every_parameter_must_be_supplied(tmp_path, key, prefix):
    state = classifier()
    del state[key]
    path = save(tmp_path, {prefix + name: value for name, value in state.items()})
    assert re.search(f'1 missing in the file .*{re.escape(key)}', error_of(ConvNeXt(ARCH), path))
    assert re.search(f'1 missing in the file .*backbone.{re.escape(key)}', error_of(Toy(), path))


def test_unknown_parameter(tmp_path):
    path = save(tmp_path, {**classifier(), 'stages.1.0.attention.weight': torch.rand(3)})
    assert re.search('1 unexpected in it .*stages.1.0.attention.weight', error_of(ConvNeXt(ARCH), path))


def test_half_an_output_norm(tmp_path):
    state = randomise(ConvNeXt(ARCH)).state_dict()
    del state['norm1.bias']
    assert 'norm1: 1 as norm1.bias' in error_of(ConvNeXt(ARCH), save(tmp_path, state))


@pytest.mark.parametrize('file, model, cause', [
    (dict(), dict(use_grn=True), 'the file is a ConvNeXt V1 .* and the model a V2 .*use_grn=False'),
    (dict(use_grn=True), dict(), 'the file is a ConvNeXt V2 .* and the model a V1 .*use_grn=True'),
    (dict(), dict(arch='atto'), r'another size, depths \(1, 1, 2, 1\).* than the model, atto: .*: set arch'),
    (dict(), dict(layer_scale_init_value=0), 'the file has layer scale .* has none: set layer_scale_init_value'),
    (dict(in_channels=4), dict(), 'in_channels or stem_patch_size differ'),
])
def test_likely_cause(tmp_path, file, model, cause):
    path = save(tmp_path, classifier(**file))
    assert re.search(cause, error_of(ConvNeXt(**{'arch': ARCH, **model}), path))


def test_detector_of_another_kind(tmp_path):
    path = save(tmp_path, {'backbone.layer1.0.conv1.weight': torch.rand(3), 'neck.bias': torch.rand(2)}, 'state_dict')
    assert 'with another backbone' in error_of(ConvNeXt(ARCH), path)


def test_isotropic(tmp_path):
    path = save(tmp_path, {'stem.weight': torch.rand(3), 'blocks.0.dwconv.weight': torch.rand(2)})
    assert 'isotropic' in error_of(ConvNeXt(ARCH), path)


def test_prefix_is_honoured_and_not_needed(tmp_path):
    two = {f'{who}.{key}': value + i for i, who in enumerate(('student', 'teacher'))
           for key, value in classifier().items()}
    path = save(tmp_path, two)
    assert "holds 2 ConvNeXts, under the prefixes 'student.', 'teacher.'" in error_of(ConvNeXt(ARCH), path)
    for prefix in ('teacher', 'teacher.'):
        model = ConvNeXt(ARCH)
        load_checkpoint(model, path, prefix)
        assert torch.equal(model.stages[0][0].dwconv.bias, two['teacher.stages.0.0.dwconv.bias'])
    message = error_of(ConvNeXt(ARCH), path, prefix='backbone.')
    assert "no ConvNeXt under the prefix 'backbone.'" in message and "'student.'" in message


@pytest.mark.parametrize('prefix', ['', 'module.', 'module.backbone.', 'visual.trunk.'])
def test_any_prefix_is_found(tmp_path, prefix):
    state = classifier()
    model = ConvNeXt(ARCH)
    load_checkpoint(model, save(tmp_path, {prefix + key: value for key, value in state.items()}))
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state if key in loaded) and len(loaded) > 60


def test_init_cfg_goes_the_same_way(tmp_path):
    state = classifier()
    path = save(tmp_path, {f'backbone.{key}': value for key, value in state.items()})
    for prefix in (None, 'backbone.'):
        model = ConvNeXt(ARCH, init_cfg=dict(type='Pretrained', checkpoint=str(path), prefix=prefix))
        model.init_weights()
        assert torch.equal(model.stages[2][1].pwconv2.weight, state['stages.2.1.pwconv2.weight'])
    with pytest.raises(UserError, match='another size'):
        ConvNeXt('atto', init_cfg=dict(type='Pretrained', checkpoint=str(path))).init_weights()


def test_one_line_lists_missing_and_unused_keys(tmp_path, log):
    load_checkpoint(Toy(), save(tmp_path, classifier()))
    line, = log
    assert 'official format, ConvNeXt V1, depths (1, 1, 2, 1)' in line
    heads = len(Toy().decode_head.state_dict())
    assert f'{8 + heads} missing keys, kept at initialisation (backbone.norm0: 2' in line
    assert f'decode_head: {heads} as' in line
    assert 'unused keys: 4 (classifier norm and head)' in line


def test_fewer_stages_drop_the_rest(tmp_path, log):
    model = ConvNeXt(ARCH, out_indices=(0, 1))
    state = randomise(ConvNeXt(ARCH)).state_dict()
    load_checkpoint(model, save(tmp_path, state))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert 'stages after the last one' in log[0]


def test_another_number_of_classes(tmp_path, log):
    source, model = randomise(Toy(7)), Toy(5)
    initial = {key: value.clone() for key, value in model.state_dict().items()}
    load_checkpoint(model, save(tmp_path, source.state_dict(), 'state_dict'))
    dependent = ('decode_head.conv_seg', 'decode_head.fc_cls', 'decode_head.fc_reg')
    for key, value in model.state_dict().items():
        expected = initial if key.startswith(dependent) else source.state_dict()
        assert torch.equal(value, expected[key]), key
    assert f'reinitialised for 5 classes instead of 7: {", ".join(dependent)}' in log[0]


@pytest.mark.parametrize('meta', [dict(dataset_meta=dict(classes=('cat', 'person', 'dog'))),
                                  dict(CLASSES=('cat', 'person', 'dog'))])
def test_classes_of_the_same_name_keep_their_weights(meta, log):
    """Their rows, found by a loop over (class, row of the class), and the background's; all others are initialised."""
    names = ('horse', 'dog', 'tree', 'person', 'car')
    source, model = randomise(Toy(3)).state_dict(), Toy(5)
    initial = model.state_dict()
    fitted = fit_checkpoint(model, dict(state_dict=source, meta=meta), 'file', classes=names)['state_dict']
    rows = {'conv_seg': 1, 'fc_cls': 1, 'fc_reg': 4}
    compared = 0
    for layer, count in rows.items():
        for part in ('weight', 'bias'):
            key = f'decode_head.{layer}.{part}'
            for index, name in enumerate(names):
                there = {'dog': 2, 'person': 1}.get(name)
                for row in range(count):
                    expected = initial[key][index * count + row] if there is None else source[key][there * count + row]
                    assert torch.equal(fitted[key][index * count + row], expected), (key, name)
                    compared += 1
    assert compared == 2 * 5 * 6
    assert torch.equal(fitted['decode_head.fc_cls.weight'][5], source['decode_head.fc_cls.weight'][3])  # background
    assert torch.equal(fitted['decode_head.shared.weight'], source['decode_head.shared.weight'])
    assert '2 of the same name keep theirs (dog, person)' in log[0]


NAMES = ('horse', 'dog', 'tree', 'person', 'car')
CLASS_LAYERS = ('decode_head.conv_seg', 'decode_head.fc_cls', 'decode_head.fc_reg')


@pytest.mark.parametrize('theirs', [('car', 'dog', 'person', 'tree', 'horse'),
                                    ('cat', 'DOG', 'sofa', 'person', 'horse')], ids=['reordered', 'others'])
def test_the_same_number_of_other_classes_is_carried_over_by_name(theirs, log):
    source, model = randomise(Toy(5)).state_dict(), Toy(5)
    start, meta = model.state_dict(), dict(dataset_meta=dict(classes=theirs))
    fitted = fit_checkpoint(model, dict(state_dict=source, meta=meta), 'file', classes=NAMES,
                            class_layers=lambda: CLASS_LAYERS)['state_dict']
    places = {name.lower(): index for index, name in enumerate(theirs)}
    for layer, count in {'conv_seg': 1, 'fc_cls': 1, 'fc_reg': 4}.items():
        for key in (f'decode_head.{layer}.weight', f'decode_head.{layer}.bias'):
            for row in range(5 * count):
                there = places.get(NAMES[row // count])
                expected = start[key][row] if there is None else source[key][there * count + row % count]
                assert torch.equal(fitted[key][row], expected), (key, row)
    assert torch.equal(fitted['decode_head.fc_cls.bias'][5], source['decode_head.fc_cls.bias'][5])  # background
    others = {key for key in source if key.rpartition('.')[0] not in CLASS_LAYERS}
    assert all(torch.equal(fitted[key], source[key]) for key in others)
    assert 'reinitialised for 5 other classes' in log[0] and 'of the same name keep theirs' in log[0]


def test_other_classes_are_refused_in_evaluation():
    model = Toy(5)
    content = dict(state_dict=randomise(Toy(5)).state_dict())
    for theirs, kind in ((NAMES[::-1], 'the same classes in another order'), ((*NAMES[:4], 'bus'), 'other classes')):
        with pytest.raises(UserError, match=kind) as error:
            fit_checkpoint(model, {**content, 'meta': dict(CLASSES=theirs)}, 'file', complete=True, classes=NAMES)
        assert '\n' not in str(error.value) and ("'bus' in the file and 'car'" in str(error.value)) == ('bus' in theirs)
    same = ('Horse', 'dog', 'TREE', ' person', 'car')
    for classes in (same, (), ('one',)):  # spelt in another way, or not known
        fit_checkpoint(model, {**content, 'meta': dict(CLASSES=classes)}, 'file', complete=True, classes=NAMES)
    backbone = {f'backbone.{key}': value for key, value in model.backbone.state_dict().items()}
    fit_checkpoint(model, dict(state_dict=backbone, meta=dict(CLASSES=NAMES[::-1])), 'file', classes=NAMES)


@pytest.mark.parametrize('dtype', [torch.int64, torch.int8, torch.complex64, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize('key', ['backbone.stages.0.0.gamma', 'decode_head.conv_seg.weight'])
def test_another_kind_of_numbers(tmp_path, dtype, key):
    state = randomise(Toy()).state_dict()
    state[key] = state[key].to(dtype)
    message = error_of(Toy(), save(tmp_path, state, 'state_dict'))
    assert f'{key} is {dtype} in the file and torch.float32 in the model' in message and 'another kind' in message


def test_another_width_is_not_another_number_of_classes(tmp_path):
    state = randomise(Toy(7)).state_dict()
    state['decode_head.objectness.weight'] = torch.rand(4, 12)
    message = error_of(Toy(5), save(tmp_path, state, 'state_dict'))
    assert 'decode_head.objectness.weight' in message and 'the heads differ' in message


def test_heads_of_another_task_are_kept_at_initialisation(tmp_path, log):
    state = {f'backbone.{key}': value for key, value in randomise(ConvNeXt(ARCH)).state_dict().items()}
    detector = {**state, 'neck.convs.weight': torch.rand(3), 'roi_head.bbox_head.fc_cls.weight': torch.rand(3, 4)}
    model = Toy()
    load_checkpoint(model, save(tmp_path, detector, 'state_dict'))
    assert torch.equal(model.backbone.norm3.weight, state['backbone.norm3.weight'])
    assert 'unused keys: 2 (heads of another task)' in log[0] and 'decode_head' in log[0]


def test_a_whole_model_brings_its_output_norms(tmp_path):
    state = randomise(Toy()).state_dict()
    for kind in ('weight', 'bias'):
        del state[f'backbone.norm2.{kind}']
    assert '2 missing in the file (backbone.norm2' in error_of(Toy(), save(tmp_path, state, 'state_dict'))


def test_a_detector_fills_a_backbone(tmp_path):
    source, model = randomise(Toy()), ConvNeXt(ARCH)
    load_checkpoint(model, save(tmp_path, source.state_dict(), 'state_dict'))
    assert all(torch.equal(value, source.backbone.state_dict()[key]) for key, value in model.state_dict().items())


def test_complete_allows_no_missing_keys(tmp_path):
    path = save(tmp_path, classifier())
    assert 'backbone without the heads' in error_of(Toy(), path, complete=True)
    path = save(tmp_path, randomise(Toy(7)).state_dict(), 'state_dict')
    assert 'number of classes' in error_of(Toy(5), path, complete=True)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_not_finite(tmp_path, value):
    state = classifier()
    state['stages.1.0.pwconv1.weight'][3, 2] = value
    message = error_of(ConvNeXt(ARCH), save(tmp_path, state))
    assert 'NaN or infinite values in 1 of' in message and 'stages.1.0.pwconv1.weight' in message


@pytest.mark.parametrize('plain, averaged', [('model', 'model_ema'), ('state_dict', 'state_dict_ema')])
def test_of_two_twins_the_averaged_one_is_taken(tmp_path, plain, averaged):
    state = classifier()
    torch.save({plain: state, averaged: {key: value + 1 for key, value in state.items()}}, tmp_path / 'file.pth')
    model = ConvNeXt(ARCH)
    load_checkpoint(model, tmp_path / 'file.pth')
    assert torch.equal(model.stages[0][0].gamma, state['stages.0.0.gamma'] + 1)


def test_half_precision_files(tmp_path):
    state = classifier()
    model = ConvNeXt(ARCH)
    load_checkpoint(model, save(tmp_path, {key: value.half() for key, value in state.items()}))
    assert model.stages[0][0].gamma.dtype == torch.float32
    assert torch.equal(model.stages[0][0].gamma, state['stages.0.0.gamma'].half().float())
