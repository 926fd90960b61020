"""Checkpoints of our own runs: resumed exactly, evaluated with the right weights, published without the ballast."""
import hashlib
import json
import re

import pytest
import torch
from random_weights import randomise
from tool_runs import must_run, run_tool
from toy import ARCH, Images, Toy, runner

from convnext_dense.checkpoints import load_checkpoint, read_checkpoint
from convnext_dense.checkpoints.publishing import publish
from convnext_dense.errors import UserError
from convnext_dense.models import ConvNeXt


def build():
    torch.manual_seed(0)
    return Toy()


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Two epochs with an EMA, in one go; its folder holds epoch_1.pth and epoch_2.pth."""
    folder = tmp_path_factory.mktemp('runs') / 'whole'
    runner(folder, build(), epochs=2, ema=True).train()
    return folder


def test_resumed_run_ends_like_the_uninterrupted_one(run, tmp_path):
    again = runner(tmp_path / 'again', build(), epochs=2, ema=True, load_from=str(run / 'epoch_1.pth'), resume=True)
    again.train()
    whole, resumed = (read_checkpoint(folder / 'epoch_2.pth') for folder in (run, tmp_path / 'again'))
    assert same(whole['state_dict'], resumed['state_dict']) and same(whole['ema_state_dict'], resumed['ema_state_dict'])
    assert not same(read_checkpoint(run / 'epoch_1.pth')['state_dict'], whole['state_dict'])
    for key, theirs in whole['optimizer']['state'].items():
        ours = resumed['optimizer']['state'][key]
        assert torch.equal(ours['exp_avg'], theirs['exp_avg']) and torch.equal(ours['step'], theirs['step'])
    losses = [checkpoint['message_hub']['log_scalars']['train/loss'].data[0] for checkpoint in (whole, resumed)]
    assert losses[0].tolist() == losses[1].tolist() and len(losses[0]) == 4


def test_loading_takes_the_averaged_weights(run):
    checkpoint = read_checkpoint(run / 'epoch_2.pth')
    model = Toy()
    load_checkpoint(model, run / 'epoch_2.pth', complete=True)
    assert same(model.state_dict(), checkpoint['state_dict'])
    raw = {key.removeprefix('module.'): value for key, value in checkpoint['ema_state_dict'].items()}
    assert any(not torch.equal(model.state_dict()[key], raw[key]) for key in model.state_dict())


@pytest.mark.parametrize('ema', [False, True])
def test_testing_uses_the_loaded_weights(run, tmp_path, ema):
    state = read_checkpoint(run / 'epoch_2.pth')['state_dict']
    testing = runner(tmp_path / 'test', Toy(), test=True, ema=ema, load_from=str(run / 'epoch_2.pth'))
    mean = testing.test()['mean']
    reference = Toy()
    reference.load_state_dict(state)
    with torch.no_grad():
        images = torch.stack([Images()[i]['inputs'] for i in range(4)])
        expected = torch.stack(reference.eval()(images)).mean().item()
    assert mean == pytest.approx(expected, rel=1e-4)


def test_testing_refuses_a_backbone_without_heads(tmp_path):
    torch.save({'model': ConvNeXt(ARCH).state_dict()}, tmp_path / 'backbone.pth')
    with pytest.raises(UserError, match='backbone without the heads'):
        runner(tmp_path / 'test', test=True, load_from=str(tmp_path / 'backbone.pth')).test()


@pytest.mark.parametrize('ema', [False, True])
def test_training_may_start_from_a_classifier(tmp_path, ema):
    state = {**randomise(ConvNeXt(ARCH, output_norm=False)).state_dict(), 'head.bias': torch.ones(3)}
    torch.save({'model': state}, tmp_path / 'classifier.pth')
    training = runner(tmp_path / 'train', build(), ema=ema, load_from=str(tmp_path / 'classifier.pth'))
    training.optim_wrapper['optimizer']['lr'] = 0.0
    training.train()
    trained = read_checkpoint(tmp_path / 'train/epoch_1.pth')['state_dict']
    assert all(torch.allclose(trained[f'backbone.{key}'], value, atol=1e-6)
               for key, value in state.items() if not key.startswith('head'))


@pytest.mark.parametrize('classes, kind', [(('b', 'a'), 'another order'), (('a', 'c'), 'other classes')])
def test_a_run_on_other_classes_is_not_tested_or_resumed(tmp_path, classes, kind):
    torch.save(dict(state_dict=Toy(2).state_dict(), meta=dict(dataset_meta=dict(classes=classes))), tmp_path / 'a.pth')
    file = str(tmp_path / 'a.pth')
    with pytest.raises(UserError, match=kind):
        runner(tmp_path / 'test', Toy(2), test=True, load_from=file).test()
    with pytest.raises(UserError, match=kind):
        runner(tmp_path / 'resume', Toy(2), load_from=file, resume=True).train()


def test_resuming_needs_every_weight(run, tmp_path):
    checkpoint = read_checkpoint(run / 'epoch_1.pth')
    del checkpoint['state_dict']['decode_head.shared.bias']
    torch.save(checkpoint, tmp_path / 'broken.pth')
    with pytest.raises(UserError, match='1 missing in the file .*decode_head.shared'):
        runner(tmp_path / 'again', build(), epochs=2, load_from=str(tmp_path / 'broken.pth'), resume=True).train()


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_publish(run, tmp_path, suffix):
    file = publish(run / 'epoch_2.pth', tmp_path, suffix)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.name == f'epoch_2-{digest[:8]}{suffix}' and len(list(tmp_path.iterdir())) == 1
    published, original = read_checkpoint(file), read_checkpoint(run / 'epoch_2.pth')
    assert set(published) == {'meta', 'state_dict'} and same(published['state_dict'], original['state_dict'])
    assert file.stat().st_size < 0.5 * (run / 'epoch_2.pth').stat().st_size
    meta = published['meta']
    assert meta['cfg'] == original['meta']['cfg'] and meta['epoch'] == 2 and meta['ema'] is True
    tested = runner(tmp_path / 'test', Toy(), test=True, load_from=str(file)).test()
    assert meta['metrics'] == {'mean': pytest.approx(tested['mean'], rel=1e-4)}  # what the run logged at this step
    assert meta['versions']['torch'].split('+')[0] == torch.__version__.split('+')[0]
    assert list(meta['dataset_meta']['classes']) == ['a', 'b']
    model = Toy()
    load_checkpoint(model, file, complete=True)
    assert same(model.state_dict(), original['state_dict'])


def test_publish_tool(run, tmp_path):
    (tmp_path / 'metrics.json').write_text(json.dumps({'coco/bbox_mAP': 0.461}))
    must_run('publish_checkpoint', run / 'epoch_2.pth', '--out-dir', tmp_path, '--metrics', tmp_path / 'metrics.json')
    file, = tmp_path.glob('*.pth')
    assert re.fullmatch(r'epoch_2-[0-9a-f]{8}\.pth', file.name)
    assert read_checkpoint(file)['meta']['metrics'] == {'coco/bbox_mAP': 0.461}
    assert 'epoch_3.pth does not exist' in run_tool('publish_checkpoint', run / 'epoch_3.pth').error


def test_publish_refuses(run, tmp_path):
    (tmp_path / 'metrics.json').write_text('[1, 2]')
    with pytest.raises(UserError, match='one JSON object of names and numbers'):
        publish(run / 'epoch_2.pth', tmp_path, metrics=tmp_path / 'metrics.json')
    torch.save({'state_dict': {'fc.weight': torch.ones(2)}}, tmp_path / 'other.pth')
    with pytest.raises(UserError, match='holds no ConvNeXt'):
        publish(tmp_path / 'other.pth')
