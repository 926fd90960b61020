"""One run at a time in a work dir, what a killed one leaves there, and which checkpoints are a run's own."""
import json

import pytest
import torch

from convnext_dense.engine import work_dir
from convnext_dense.engine.work_dir import (
    INTERRUPTED,
    begin_run,
    latest_good_checkpoint,
    new_work_dir,
    newest_work_dir,
    owned_work_dir,
)
from convnext_dense.errors import UserError


def save(folder, name, run=None, **content):
    meta = {} if run is None else {'run': run}
    torch.save({'meta': meta, 'state_dict': {'w': torch.rand(1000)}, 'optimizer': {}, **content}, folder / name)
    return folder / name


def test_a_second_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(work_dir, 'LOCK_WAIT', 0.1)
    with owned_work_dir(tmp_path / 'run'), owned_work_dir(tmp_path / 'run', rank=1):  # another rank of the same run
        with pytest.raises(UserError, match=r'another training run is writing to .*/run: wait for its end'):
            with owned_work_dir(tmp_path / 'run'):
                pass
    with owned_work_dir(tmp_path / 'run'):
        pass


def test_half_written_files_of_a_killed_run_are_removed(tmp_path):
    kept = ['iter_4.pth', 'config.py', 'notes.part', '.hidden', 'parts.1.part.txt']
    for name in [*kept, '.iter_8.pth.123.part.pth', '.metrics.json.7.part.json', 'iter_8.pth.part']:
        (tmp_path / name).write_text('x')
    with owned_work_dir(tmp_path):
        assert {file.name for file in tmp_path.iterdir()} == {*kept, '.lock'}


def test_a_folder_that_is_lost_during_the_run(tmp_path):
    with pytest.raises(UserError, match=r'the work dir .*/run cannot be written \(No such file or directory: .*log'):
        with owned_work_dir(tmp_path / 'run'):
            (tmp_path / 'run/lost/log').open('w')
    with pytest.raises(FileNotFoundError), owned_work_dir(tmp_path / 'run'):
        (tmp_path / 'run2/log').open('w')  # not in the work dir


def test_an_earlier_runs_checkpoints_are_ignored(tmp_path):
    """An old run of 36 epochs, and a new one in its third: before the first checkpoint there is nothing to resume."""
    old, new = begin_run(tmp_path), None
    for epoch in (12, 36):
        save(tmp_path, f'epoch_{epoch}.pth', old)
    assert latest_good_checkpoint(tmp_path).name == 'epoch_36.pth'
    new = begin_run(tmp_path)
    assert new != old and latest_good_checkpoint(tmp_path) is None
    save(tmp_path, 'epoch_2.pth', new)
    save(tmp_path, 'epoch_3.pth', new)
    assert latest_good_checkpoint(tmp_path).name == 'epoch_3.pth'
    assert begin_run(tmp_path, continued=True) == new
    (tmp_path / 'epoch_3.pth').write_bytes((tmp_path / 'epoch_3.pth').read_bytes()[:-200])
    assert latest_good_checkpoint(tmp_path).name == 'epoch_2.pth'
    save(tmp_path, 'epoch_4.pth', new).touch()
    torch.save({'meta': {'run': new}, 'state_dict': {}}, tmp_path / 'epoch_4.pth')  # without an optimizer
    assert latest_good_checkpoint(tmp_path).name == 'epoch_2.pth'


def test_a_run_that_was_resumed_from_a_named_file_resumes_from_it_again(tmp_path):
    """Until it has a checkpoint of its own; later ones of the run that it left are not taken."""
    run = begin_run(tmp_path)
    files = [save(tmp_path, f'epoch_{epoch}.pth', run) for epoch in (1, 2, 3)]
    branch = begin_run(tmp_path, resumed_from=str(files[0]))
    assert latest_good_checkpoint(tmp_path) == files[0]
    own = save(tmp_path, 'epoch_2.pth', branch)
    assert latest_good_checkpoint(tmp_path) == own


def test_without_a_record_the_newest_checkpoint_counts(tmp_path):
    """A folder that another trainer wrote, or into which somebody copied a checkpoint."""
    assert latest_good_checkpoint(tmp_path) is None
    save(tmp_path, 'iter_9.pth')
    save(tmp_path, 'iter_10.pth', 'any')
    for content in (None, b'', b'\xff\x00', b'[]', b'{"run": 3}', json.dumps({'run': None}).encode()):
        if content is not None:
            (tmp_path / 'run.json').write_bytes(content)
        assert latest_good_checkpoint(tmp_path).name == 'iter_10.pth'


def test_runs_are_never_mixed(tmp_path):
    folder = str(tmp_path / 'run')
    assert new_work_dir(folder) == newest_work_dir(folder) == folder
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/notes.txt').write_text('no run')
    assert new_work_dir(folder) == folder
    begin_run(folder)
    with pytest.raises(UserError, match='/run has a run already: continue it with --resume'):
        new_work_dir(folder, 'stop')
    assert new_work_dir(folder) == f'{folder}2' and newest_work_dir(folder) == folder
    for number in (2, 3):
        (tmp_path / f'run{number}').mkdir()
        save(tmp_path / f'run{number}', 'iter_1.pth')
    assert new_work_dir(folder) == f'{folder}4' and newest_work_dir(folder) == f'{folder}3'


def test_what_ctrl_c_saved_is_the_newest(tmp_path):
    run = begin_run(tmp_path)
    save(tmp_path, 'epoch_3.pth', run)
    saved = save(tmp_path, INTERRUPTED, run)
    assert latest_good_checkpoint(tmp_path) == saved
    begin_run(tmp_path)
    assert latest_good_checkpoint(tmp_path) is None
