"""Files made to confuse: one sentence each, in bounded time, and mutated files by the thousand."""
import json
import os
import random
import signal
import struct
import time
import zipfile

import pytest
import torch
from random_weights import randomise
from safetensors.torch import save_file
from test_bad_input import Evil, no_trace, sentence
from toy import ARCH, Toy

from convnext_dense.checkpoints import load_checkpoint, read_checkpoint
from convnext_dense.checkpoints.converting import convert_file
from convnext_dense.checkpoints.publishing import publish
from convnext_dense.errors import UserError
from convnext_dense.models import ConvNeXt

KEY = 'stages.0.0.gamma'


class TooSlow(BaseException):
    """Not an Exception, so that no reader takes it for damage."""


@pytest.fixture(autouse=True)
def deadline():
    """Interrupt what waits or computes for too long; call with seconds to start anew."""
    def start(seconds: int = 60) -> None:
        signal.alarm(seconds)

    def stop(signum, frame):
        raise TooSlow

    previous = signal.signal(signal.SIGALRM, stop)
    start()
    yield start
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def state_with(value):
    return {**randomise(ConvNeXt(ARCH)).state_dict(), KEY: value}


UNUSABLE = {
    'sparse': lambda: torch.eye(8).to_sparse(), 'csr': lambda: torch.eye(8).to_sparse_csr(),
    'meta': lambda: torch.empty(8, device='meta'),
    'quantised': lambda: torch.quantize_per_tensor(torch.rand(8), 0.1, 0, torch.qint8),
    'nested': lambda: torch.nested.nested_tensor([torch.rand(2), torch.rand(3)]),
    'expanded': lambda: torch.ones(1).expand(10 ** 12),
}


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('kind', UNUSABLE)
def test_what_is_no_plain_tensor(tmp_path, kind):
    file = tmp_path / 'file.pth'
    torch.save({'model': state_with(UNUSABLE[kind]())}, file)
    for use in (lambda: load_checkpoint(ConvNeXt(ARCH), file), lambda: publish(file),
                lambda: convert_file(file, tmp_path / 'out.pth')):
        with pytest.raises(UserError, match='file.pth') as error:
            use()
        assert '\n' not in str(error.value)
        assert kind in str(error.value) or kind == 'csr' and 'sparse' in str(error.value), str(error.value)
    assert os.listdir(tmp_path) == ['file.pth']


@pytest.mark.parametrize('dtype', [torch.int64, torch.complex64])
def test_only_floats_are_published_and_converted(tmp_path, dtype):
    file = tmp_path / 'file.pth'
    torch.save({'model': state_with(torch.ones(8, dtype=dtype))}, file)
    for use in (lambda: publish(file), lambda: convert_file(file, tmp_path / 'out.pth')):
        with pytest.raises(UserError, match=f'{KEY} is of type {dtype}'):
            use()
    assert os.listdir(tmp_path) == ['file.pth']


@pytest.mark.parametrize('build', [lambda d: {'model': d}, lambda d: {'state_dict': {'model': d}}])
def test_a_dict_that_contains_itself(tmp_path, build):
    content = {}
    content.update(build(content))
    torch.save(content, tmp_path / 'file.pth')
    assert 'holds no weights' in sentence(tmp_path / 'file.pth')
    with pytest.raises(UserError, match='holds no weights'):
        publish(tmp_path / 'file.pth')


def endless():
    content = []
    content.append(content)
    return content


def bomb():
    content = ['x']
    for _ in range(60):
        content = [content, content]
    return content


def deep():
    content = []
    for _ in range(400):
        content = [content]
    return {'a': content, 'b': {(1, 2): 3}}


@pytest.mark.parametrize('build', [endless, bomb, deep, lambda: torch.ones(2), lambda: {3: {4: endless()}}])
@pytest.mark.parametrize('key', ['cfg', 'dataset_meta'])
def test_the_record_of_a_run_may_be_anything(tmp_path, build, key):
    """It is published as JSON or refused in one sentence; loading does not look into it."""
    torch.save({'meta': {key: build()}, 'state_dict': randomise(ConvNeXt(ARCH)).state_dict()}, tmp_path / 'file.pth')
    load_checkpoint(ConvNeXt(ARCH), tmp_path / 'file.pth')
    try:
        read_checkpoint(publish(tmp_path / 'file.pth', tmp_path / 'out'))
    except UserError as error:
        assert 'meta entry' in str(error) and '\n' not in str(error)


@pytest.mark.parametrize('meta', ['text', [1], torch.ones(2), {'dataset_meta': [3]}, {'dataset_meta': {'classes': 7}},
                                  {'CLASSES': [['a'], {}]}])
def test_a_malformed_record_is_no_record(tmp_path, meta):
    torch.save({'meta': meta, 'state_dict': Toy().state_dict()}, tmp_path / 'file.pth')
    load_checkpoint(Toy(), tmp_path / 'file.pth')
    publish(tmp_path / 'file.pth', tmp_path / 'out')


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'file.pth')
    assert 'no regular file' in sentence(tmp_path / 'file.pth')
    index = tmp_path / 'model.index.json'
    index.write_text(json.dumps({'weight_map': {'a': 'file.pth'}}))
    assert 'file.pth is missing' in sentence(index)
    with pytest.raises(UserError, match='no regular file'):
        read_checkpoint('/dev/zero')


@pytest.mark.parametrize('name', ['a\0b.pth', 'x' * 5000, '~nobody-of-this-name/a.pth', 'folder/' * 2000 + 'a.pth'])
def test_names_that_no_file_can_have(name):
    with pytest.raises(UserError) as error:
        read_checkpoint(name)
    assert '\n' not in str(error.value) and '\0' not in str(error.value)


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize('zipped', [True, False])
def test_every_pickle_protocol_is_refused_by_the_name_of_its_type(tmp_path, protocol, zipped):
    content = {'state_dict': Toy().state_dict(), 'evil': Evil(tmp_path / 'trace')}
    torch.save(content, tmp_path / 'file.pth', pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    message = sentence(tmp_path / 'file.pth')
    assert no_trace(tmp_path)
    if zipped or protocol >= 2:
        assert 'posix.mkdir' in message and 'damaged' not in message


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4, 5])
def test_harmless_files_load_or_name_the_protocol(tmp_path, protocol):
    torch.save({'state_dict': Toy().state_dict()}, tmp_path / 'file.pth', pickle_protocol=protocol)
    try:
        load_checkpoint(Toy(), tmp_path / 'file.pth')
    except UserError as error:
        assert f'pickle protocol {protocol if protocol > 1 else "0 or 1"}' in str(error), str(error)
        assert protocol != 2


def test_archives_that_are_none_of_torchs(tmp_path):
    with zipfile.ZipFile(tmp_path / 'weights.pth', 'w') as archive:
        archive.writestr('epoch_1.pth', 'x')
    assert 'is a zip archive and no checkpoint' in sentence(tmp_path / 'weights.pth')
    with zipfile.ZipFile(tmp_path / 'bomb.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a/data.pkl', bytes(1 << 24))
    assert 'times as large' in sentence(tmp_path / 'bomb.pth')


@pytest.mark.parametrize('content', [
    '{"weight_map": {"a": "model.index.json"}}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": ["b"]}}',
    '{"weight_map": ["a"]}', '{"a":' * 50_000, '{"weight_map": {"a": "b\\nc"}}', '{"weight_map": {"a": "\\u0000"}}'])
def test_a_malformed_index(tmp_path, content):
    (tmp_path / 'model.index.json').write_text(content)
    sentence(tmp_path / 'model.index.json')


def test_an_index_of_many_shards_is_quick(tmp_path, deadline):
    deadline(20)
    (tmp_path / 'model.index.json').write_text(json.dumps({'weight_map': {f'k{i}': f's{i}' for i in range(200_000)}}))
    assert 'is missing' in sentence(tmp_path / 'model.index.json')


@pytest.mark.parametrize('shape', [(), (0,), (7,), (48, 8), (2, 3, 4), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize('key', ['stages.0.0.dwconv.weight', 'downsample_layers.0.0.weight', 'stages.0.0.dwconv.kernel',
                                 'downsample_layers.1.1.kernel', 'stages.0.0.grn.gamma', 'stages.999999999.0.gamma',
                                 f'stages.0.{"9" * 5000}.gamma', 'stages.0.0.gamma\nx', 'stages.٣.0.dwconv.weight'])
def test_any_shape_and_any_name(tmp_path, key, shape):
    torch.save({'model': state_with(torch.ones(8)) | {key: torch.ones(shape)}}, tmp_path / 'file.pth')
    sentence(tmp_path / 'file.pth')


def seeds(folder):
    """One small file of every kind that can be read, and two with code in them."""
    state = randomise(ConvNeXt(dict(depths=[1, 1, 1, 1], channels=[2, 2, 2, 2]))).state_dict()
    content = {'meta': dict(epoch=1, cfg='x = 1', dataset_meta=dict(classes=('a', 'b'))), 'state_dict': state,
               'optimizer': {'state': {0: {'step': torch.tensor(3.0)}}, 'param_groups': [{'lr': 0.1}]}}
    evil = {**content, 'evil': Evil(folder / 'trace')}
    torch.save(content, folder / 'zip')
    torch.save(content, folder / 'legacy', _use_new_zipfile_serialization=False)
    torch.save(content, folder / 'protocol4', pickle_protocol=4)
    torch.save(evil, folder / 'evil zip')
    torch.save(evil, folder / 'evil legacy', _use_new_zipfile_serialization=False)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / 'safetensors')
    (folder / 'index').write_text(json.dumps({'weight_map': dict.fromkeys(state, 'safetensors')}))
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def mutate(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """``content`` with one to four changes: bits, numbers, cuts, copies, pieces of another file."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, len(data)))
        # headers and directories are at the two ends, and short beside the weights
        at = rng.choice([at, min(at, rng.randrange(1, 2000)), max(0, len(data) - rng.randrange(1, 3000))])
        length = rng.choice([1, 2, 4, 8, rng.randrange(1, 300)])
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:at + length] = rng.randbytes(length)
        elif kind == 2:
            number = rng.choice([0, 1, 127, 255, 65535, 2 ** 31 - 1, 2 ** 32 - 1, 2 ** 63 - 1])
            data[at:at + 8] = struct.pack('<Q', number)[:rng.choice([1, 2, 4, 8])]
        elif kind == 3:
            del data[at:at + length]
        elif kind == 4:
            data[at:at] = data[at:at + length] * rng.randint(1, 3)
        elif kind == 5:
            start = rng.randrange(max(1, len(other)))
            data[at:at + length] = other[start:start + length]
        else:
            data = data[:at]
    return bytes(data)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::UserWarning')
def test_mutated_files(tmp_path, deadline, capsys):
    """Reading, loading and publishing end in a UserError or in success; nothing runs, waits or crashes."""
    folder = tmp_path / 'seeds'
    folder.mkdir()
    files = seeds(folder)
    names, rng, until = sorted(files), random.Random(0), time.monotonic() + 60
    model, file, outcomes = ConvNeXt(dict(depths=[1] * 4, channels=[2] * 4)), folder / 'mutated.pth', {}
    for count in range(20_000):
        if time.monotonic() > until:
            break
        name = names[count % len(names)]
        file.write_bytes(mutate(files[name], files[rng.choice(names)], rng))
        deadline(20)
        for use in (lambda: load_checkpoint(model, file), lambda: publish(file, tmp_path / 'out')):
            try:
                use()
                outcome = 'loaded'
            except UserError as error:
                outcome = 'refused'
                assert '\n' not in str(error), (count, str(error))
            outcomes[name, outcome] = outcomes.get((name, outcome), 0) + 1
        assert no_trace(folder), count
    with capsys.disabled():
        print(f'\n{count + 1} mutated files: ' + ', '.join(f'{name} {outcome} {number}'
              for (name, outcome), number in sorted(outcomes.items())))
    assert sum(number for (_, outcome), number in outcomes.items() if outcome == 'refused') > 100
    assert sum(number for (_, outcome), number in outcomes.items() if outcome == 'loaded') > 20
