"""Checkpoints beside training: what is written is what was there, one at a time, whole or not at all."""
import errno
import threading
from pathlib import Path

import pytest
import torch

from convnext_dense.engine import checkpoint_writer
from convnext_dense.engine.checkpoint_writer import CheckpointWriter, save
from convnext_dense.errors import UserError


@pytest.fixture
def blocked(monkeypatch):
    """`save` waits, half a file written, until this event is set; ``most`` is how many were at it at once."""
    event, at_it = threading.Event(), []
    event.most = 0

    def wait_and_save(checkpoint, path):
        at_it.append(path)
        event.most = max(event.most, len(at_it))
        path.write_bytes(b'half')
        assert event.wait(20)
        save(checkpoint, path)
        at_it.remove(path)

    monkeypatch.setattr(checkpoint_writer, 'save', wait_and_save)
    yield event
    event.set()


def state(value: float) -> dict:
    weights = torch.full((2, 3, 4, 4), value).to(memory_format=torch.channels_last)
    return {'state_dict': {'weight': weights}, 'optimizer': {'state': {0: {'step': torch.tensor(value)}}},
            'meta': {'iter': value}}


def test_training_goes_on_and_is_not_in_the_file(blocked, tmp_path):
    writer, path, checkpoint, called = CheckpointWriter(), tmp_path / 'a.pth', state(1.0), []
    writer.write(checkpoint, path)
    writer.after(lambda: called.append(path.exists()))
    for tensor in (checkpoint['state_dict']['weight'], checkpoint['optimizer']['state'][0]['step']):
        tensor.add_(1)
    checkpoint['meta']['iter'] = 2.0
    assert writer.is_writing and not path.exists() and not called
    blocked.set()
    writer.wait()
    written, expected = torch.load(path), state(1.0)
    assert torch.equal(written['state_dict']['weight'], expected['state_dict']['weight'])
    assert written['state_dict']['weight'].is_contiguous(memory_format=torch.channels_last)
    assert written['optimizer']['state'][0]['step'] == 1 and written['meta'] == {'iter': 1.0}
    assert called == [True] and not writer.is_writing and list(tmp_path.iterdir()) == [path]


def test_one_at_a_time_into_the_same_memory(blocked, tmp_path):
    writer = CheckpointWriter()
    writer.write(state(1.0), tmp_path / '1.pth')
    memory = {tensor.data_ptr() for tensor in writer._buffers.values()}
    threading.Timer(0.2, blocked.set).start()
    for number in (2, 3):
        writer.write(state(float(number)), tmp_path / f'{number}.pth')
        assert (tmp_path / f'{number - 1}.pth').exists()
    writer.wait()
    assert blocked.most == 1 and {tensor.data_ptr() for tensor in writer._buffers.values()} == memory
    assert [torch.load(tmp_path / f'{number}.pth')['meta']['iter'] for number in (1, 2, 3)] == [1, 2, 3]


def test_what_goes_wrong_is_raised_once_and_nothing_follows(tmp_path):
    writer, called = CheckpointWriter(), []
    writer.write(state(float('nan')), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='a.pth is not written, because weight of the model has values'):
        writer.after(lambda: called.append(1))
        writer.wait()
    writer.wait()
    assert not called and not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')
def test_a_full_disk_is_an_os_error():
    with pytest.raises(OSError) as raised:
        save(state(1.0), Path('/dev/full'))
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == '/dev/full'
