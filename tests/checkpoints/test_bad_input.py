"""Files that are none, names that are none, and pickles with code in them: one sentence, no trace, no change."""
import collections
import json
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from tool_runs import run_tool
from toy import ARCH, Toy, runner

from convnext_dense.checkpoints import load_checkpoint, read_checkpoint
from convnext_dense.errors import UserError
from convnext_dense.models import ConvNeXt


def sentence(path):
    with pytest.raises(UserError) as error:
        load_checkpoint(ConvNeXt(ARCH), path)
    assert '\n' not in str(error.value)
    assert os.path.basename(path) in str(error.value)
    return str(error.value)


@pytest.fixture
def good(tmp_path):
    torch.save({'model': ConvNeXt(ARCH).state_dict()}, tmp_path / 'good.pth')
    save_file({key: value.contiguous() for key, value in ConvNeXt(ARCH).state_dict().items()},
              tmp_path / 'good.safetensors')
    return tmp_path


@pytest.mark.parametrize('name', ['good.pth', 'good.safetensors'])
@pytest.mark.parametrize('share', [0.001, 0.1, 0.5, 0.99])
def test_cut_off(good, name, share):
    content = (good / name).read_bytes()
    (good / name).write_bytes(content[:max(4, int(len(content) * share))])
    message = sentence(good / name)
    assert 'damaged or cut off' in message or 'no checkpoint that torch can read' in message


@pytest.mark.parametrize('content, expected', [
    (b'', 'is empty'),
    (b'<!DOCTYPE html><html><body>404</body></html>', 'web page'),
    (b'\n  <html>', 'web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'git-lfs pointer'),
    (b'hello, this is not a checkpoint', 'no checkpoint'),
    (bytes(range(256)) * 10, 'checkpoint'),
    (b'{"weight_map": 3}', 'no index of sharded weights'),
    (b'{broken', 'no index of sharded weights'),
])
def test_no_checkpoint(tmp_path, content, expected):
    (tmp_path / 'file.pth').write_bytes(content)
    assert expected in sentence(tmp_path / 'file.pth')


def test_no_file(good):
    assert 'does not exist' in sentence(good / 'other.pth')
    assert 'name the file in it: good.pth, good.safetensors' in sentence(good)
    with pytest.raises(UserError, match='nearest names: convnext_tiny_in1k'):
        load_checkpoint(ConvNeXt(ARCH), 'convnext_tiny_in1')


def test_unreadable(good, monkeypatch):
    with pytest.raises(UserError, match='name of the checkpoint is empty'):
        load_checkpoint(ConvNeXt(ARCH), '')

    def refuse(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('builtins.open', refuse)
    with pytest.raises(UserError, match='good.pth cannot be read .Permission denied.'):
        load_checkpoint(ConvNeXt(ARCH), good / 'good.pth')


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_programs(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / 'file.pt')
    assert 'needs the program in a TorchScript archive' in sentence(tmp_path / 'file.pt')
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'module.pt')
    assert 'needs torch.nn.modules.linear.Linear' in sentence(tmp_path / 'module.pt')


def test_no_weights(tmp_path):
    for content, found in (({'epoch': 3}, 'a dict of epoch'), ({}, 'a dict of nothing'), ({'model': {}}, 'nothing')):
        torch.save(content, tmp_path / 'file.pth')
        assert found in sentence(tmp_path / 'file.pth')
    torch.save([torch.ones(2)], tmp_path / 'file.pth')
    assert 'holds a list' in sentence(tmp_path / 'file.pth')


def test_shards(good):
    state = ConvNeXt(ARCH).state_dict()
    index = good / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': dict.fromkeys(state, 'gone.safetensors')}))
    with pytest.raises(UserError, match='gone.safetensors is missing'):
        read_checkpoint(index)
    index.write_text(json.dumps({'weight_map': dict.fromkeys(state, '../good.safetensors')}))
    assert 'outside its own directory' in sentence(index)
    index.write_text(json.dumps({'weight_map': {**dict.fromkeys(state, 'good.safetensors'), 'x': 'good.safetensors'}}))
    with pytest.raises(UserError, match='lacks 1 parameters .* as .x.'):
        read_checkpoint(index)


class Custom:
    """A harmless class of a stranger."""


@pytest.mark.parametrize('extra, name', [
    (Custom(), 'test_bad_input.Custom'), (collections.deque([1]), 'collections.deque'),
    (pickle.PickleBuffer, 'PickleBuffer'), (print, 'print')])
def test_more_than_tensors_and_containers_is_refused_by_name(tmp_path, extra, name):
    torch.save({'model': ConvNeXt(ARCH).state_dict(), 'extra': extra}, tmp_path / 'file.pth')
    message = sentence(tmp_path / 'file.pth')
    assert name in message and 'only tensors and plain containers' in message


class Evil:
    """Pickles to a call that makes a folder."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def plant(folder, kind):
    """A checkpoint of `Toy` that makes ``folder``/trace when unpickled naively."""
    content = {'meta': {}, 'state_dict': Toy().state_dict(), 'evil': Evil(folder / 'trace')}
    file = folder / f'{kind}.pth'
    if kind == 'zip':
        torch.save(content, file)
    elif kind == 'legacy':
        torch.save(content, file, _use_new_zipfile_serialization=False)
    elif kind == 'plain pickle':
        file.write_bytes(pickle.dumps(Evil(folder / 'trace')))
    elif kind == 'json name':
        file = folder / 'model.index.json'
        torch.save(content, file)
    return file


KINDS = ['zip', 'legacy', 'plain pickle', 'json name']


def no_trace(folder):
    """Whether nothing ran; the file is checked to be a real one by running it, last."""
    return not (folder / 'trace').exists()


def test_the_planted_file_would_leave_a_trace(tmp_path):
    torch.load(plant(tmp_path, 'zip'), weights_only=False)
    assert not no_trace(tmp_path)


@pytest.mark.parametrize('kind', KINDS)
def test_planted_code_does_not_run(tmp_path, monkeypatch, kind):
    from mmengine.runner import Runner as StockRunner
    from mmengine.runner import load_checkpoint as stock_load_checkpoint

    from convnext_dense.engine.runner import DenseRunner

    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '0')
    file = str(plant(tmp_path, kind))
    entries = {
        'load_checkpoint': lambda: load_checkpoint(Toy(), file),
        'init_cfg': ConvNeXt(ARCH, init_cfg=dict(type='Pretrained', checkpoint=file)).init_weights,
        'load_from, ours': lambda: runner(tmp_path / 'a', base=DenseRunner, load_from=file).train(),
        'load_from, stock': lambda: runner(tmp_path / 'b', base=StockRunner, load_from=file).train(),
        'testing, stock': lambda: runner(tmp_path / 'c', base=StockRunner, load_from=file, test=True).test(),
        'resume, stock': lambda: runner(tmp_path / 'd', base=StockRunner, load_from=file, resume=True).train(),
        'mmengine.load_checkpoint': lambda: stock_load_checkpoint(torch.nn.Linear(2, 2), file),
    }
    for entry, run in entries.items():
        with pytest.raises(UserError, match='mkdir'):
            run()
        assert no_trace(tmp_path), entry


def test_a_default_of_torch_that_is_off_does_not_matter(tmp_path, monkeypatch):
    """torch 2.4 and 2.5 load everything by default; this is how a newer one is made to."""
    file = plant(tmp_path, 'zip')
    load, seen = torch.load, []

    def old_default(*args, weights_only=False, **kwargs):
        seen.append(weights_only)
        return load(*args, weights_only=weights_only, **kwargs)

    monkeypatch.setattr(torch, 'load', old_default)
    from mmengine.runner import load_checkpoint as stock_load_checkpoint

    for run in (lambda: load_checkpoint(Toy(), file), lambda: stock_load_checkpoint(Toy(), str(file))):
        with pytest.raises(UserError, match='mkdir'):
            run()
    assert seen and all(seen) and no_trace(tmp_path)


def test_planted_code_in_a_bin_of_the_hub_does_not_run(tmp_path):
    with zipfile.ZipFile(plant(tmp_path, 'zip')) as archive:
        assert any(name.endswith('data.pkl') for name in archive.namelist())
    index = tmp_path / 'pytorch_model.bin.index.json'
    index.write_text(json.dumps({'weight_map': {'a': 'zip.pth'}}))
    with pytest.raises(UserError, match='mkdir'):
        read_checkpoint(index)
    assert no_trace(tmp_path)


def test_what_the_tools_print(tmp_path):
    finished = run_tool('convert_checkpoint', plant(tmp_path, 'zip'), tmp_path / 'out.pth')
    assert 'mkdir' in finished.error
    assert no_trace(tmp_path) and not (tmp_path / 'out.pth').exists()
