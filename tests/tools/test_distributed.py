"""Two CPU processes with gloo, started as a user starts them: the same weights on both, and one process's losses."""
import json
import sys

import pytest
import torch
from tool_runs import CONFIGS, DATA, FULL, ROOT, TOOL_TESTS, free_port, must_run, run_command

# what the tiny configs leave out and the recipes have: SyncBN (becomes BN on CPUs), dropout and drop path
AS_RECIPES = {
    'det': ['model.neck.norm_cfg.type=SyncBN', 'model.backbone.drop_path_rate=0.4'],
    'seg': ['model.decode_head.norm_cfg.type=SyncBN', 'model.decode_head.dropout_ratio=0.1',
            'model.backbone.drop_path_rate=0.4'],
}


def config_that_dumps(task: str, folder) -> str:
    """A tiny config whose processes each write their parameters and losses into ``folder`` (see rank_dump.py)."""
    folder.mkdir()
    file = folder / f'dump_{task}.py'
    file.write_text(f'_base_ = {str(CONFIGS[task])!r}\n'
                    "custom_imports = dict(imports=['convnext_dense', 'rank_dump'], allow_failed_imports=False)\n"
                    f"custom_hooks = [dict(type='RankDump', folder={str(folder)!r})]\n")
    return file


def run_two(script: str, *args, cwd) -> str:
    return run_command([ROOT / 'tools' / script, *args], cwd / f'{script}.log', cwd, PORT=free_port(),
                       PYTHONPATH=str(TOOL_TESTS))


@pytest.mark.slow
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_two_processes_end_with_equal_parameters(task, shapes, tmp_path):
    dumps = tmp_path / 'dumps'
    config = config_that_dumps(task, dumps)
    data = ['--data-root', shapes / DATA[task]]
    log = run_two('dist_train.sh', config, 2, *data, '--cfg-options', *AS_RECIPES[task], 'train_cfg.max_epochs=4'
                  if task == 'det' else 'train_cfg.max_iters=8', cwd=tmp_path)
    assert 'SyncBN layers become BN' in log
    first, second = (torch.load(dumps / f'rank{rank}.pth') for rank in (0, 1))
    assert first['parameters'].keys() == second['parameters'].keys()
    unequal = [key for key in first['parameters'] if not torch.equal(first['parameters'][key],
                                                                     second['parameters'][key])]
    losses = [json.loads((dumps / f'rank{rank}.json').read_text()) for rank in (0, 1)]
    print(f'\n{task}, two processes, {len(losses[0])} iterations: {len(unequal)} of {len(first["parameters"])} '
          f'parameters differ between ranks; last losses {losses[0][-1]["loss"]:.4f} and {losses[1][-1]["loss"]:.4f}')
    assert unequal == []
    assert len(losses[0]) == FULL and all(one != other for one, other in zip(*losses, strict=True)), \
        'each process must see images of its own'

    # the checkpoint holds those parameters, and two processes evaluate it as one does
    checkpoint = tmp_path / f'work_dirs/dump_{task}' / ('epoch_4.pth' if task == 'det' else 'iter_8.pth')
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    assert all(torch.equal(state[key], value) for key, value in first['parameters'].items())
    run_two('dist_test.sh', CONFIGS[task], checkpoint, 2, *data, '--work-dir', tmp_path / 'two', '--report', '--out',
            tmp_path / 'mine.pkl', cwd=tmp_path)
    assert (tmp_path / 'two/report.html').is_file() and (tmp_path / 'mine.pkl').is_file()
    assert not (tmp_path / 'two/report').exists(), 'the report needs no evaluation of its own'
    must_run('test', CONFIGS[task], checkpoint, *data, '--work-dir', tmp_path / 'one', cwd=tmp_path)
    one, two = (json.loads((tmp_path / name / 'metrics.json').read_text()) for name in ('one', 'two'))
    names = [name for name in one if 'time' not in name]
    assert names and {name: two[name] for name in names} == {name: one[name] for name in names}


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(shapes, tmp_path, monkeypatch):
    """Without BN, dropout, drop path and random augmentation only the order of float32 sums differs.

    The sampler deals images 0, 2, ... to one process and 1, 3, ... to the other, so two batches of two are the one
    batch of four, and every image has the same number of pixels, so the mean of the two losses is the loss of four.
    """
    options = ['--data-root', shapes / 'ade', '--cfg-options', 'model.decode_head.norm_cfg=None',
               'model.auxiliary_head.norm_cfg=None', 'train_dataloader.dataset.pipeline.2.prob=0.0',
               'train_cfg.max_iters=20', 'train_cfg.val_interval=100', 'default_hooks.checkpoint.interval=100']
    folders = tmp_path / 'two', tmp_path / 'one'
    run_two('dist_train.sh', config_that_dumps('seg', folders[0]), 2, *options, 'train_dataloader.batch_size=2',
            cwd=tmp_path)
    monkeypatch.syspath_prepend(TOOL_TESTS)
    must_run('train', config_that_dumps('seg', folders[1]), *options, 'train_dataloader.batch_size=4', cwd=tmp_path)
    ranks = [[step['loss'] for step in json.loads((folders[0] / f'rank{rank}.json').read_text())] for rank in (0, 1)]
    two = [(a + b) / 2 for a, b in zip(*ranks, strict=True)]
    one = [step['loss'] for step in json.loads((folders[1] / 'rank0.json').read_text())]
    difference = max(abs(a - b) for a, b in zip(one, two, strict=True))
    print(f'\nUPerNet, one process with 4 images against two with 2: losses {one[0]:.6f} .. {one[-1]:.6f}, '
          f'{two[0]:.6f} .. {two[-1]:.6f}; largest difference of {len(one)} iterations {difference:.2e}')
    assert one[-1] < 0.9 * one[0], 'the comparison must cover steps that matter'
    # float32 has 1.2e-7 relative precision; AdamW's division by small second moments lifts the noise of sums
    assert difference < 1e-5


# no BN, and images of one size: then only the order of float32 sums differs
BN_FREE = {'seg': ['model.decode_head.norm_cfg=None', 'model.auxiliary_head.norm_cfg=None', 'train_cfg.max_iters=8',
                   'train_cfg.val_interval=100', 'default_hooks.checkpoint.interval=4'],
           'det': ['model.neck.norm_cfg=None', 'train_cfg.val_interval=100', 'train_cfg.max_epochs=4']}


def train_on(processes: int, task: str, folder, cwd, *arguments) -> list[dict]:
    """Train on one or two processes; returns mean loss and images of every iteration."""
    config = folder / f'dump_{task}.py' if folder.exists() else config_that_dumps(task, folder)
    if processes == 1:
        run_command([sys.executable, ROOT / 'tools/train.py', config, *arguments], cwd / f'{folder.name}.log', cwd,
                    PYTHONPATH=str(TOOL_TESTS))
    else:
        run_two('dist_train.sh', config, 2, *arguments, cwd=cwd)
    ranks = [json.loads((folder / f'rank{rank}.json').read_text()) for rank in range(processes)]
    return [{'iteration': steps[0]['iteration'], 'loss': sum(step['loss'] for step in steps) / processes,
             'images': sorted(image for step in steps for image in step['images'])}
            for steps in zip(*ranks, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize('task, first, then', [('seg', 1, 2), ('det', 2, 1)])
def test_a_run_continues_on_another_number_of_processes(task, first, then, shapes, tmp_path):
    """The same images in every iteration, with the same flips and drop path, and losses within float32's tolerance."""
    options = ['--data-root', shapes / DATA[task], '--cfg-options', *BN_FREE[task],
               'model.backbone.drop_path_rate=0.4' if then < first else 'train_dataloader.batch_size=4']
    if first == 2:
        options.append('train_dataloader.batch_size=2')
    whole = train_on(first, task, tmp_path / 'whole', tmp_path, *options, '--work-dir', tmp_path / 'a')
    half = tmp_path / 'a' / ('epoch_2.pth' if task == 'det' else 'iter_4.pth')
    rest = train_on(then, task, tmp_path / 'rest', tmp_path, *options, '--work-dir', tmp_path / 'b', '--resume', half)
    assert 'with 4 images an iteration as before' in ''.join(file.read_text() for file in tmp_path.glob('*.log'))
    whole = [step for step in whole if step['iteration'] >= rest[0]['iteration']]
    assert [step['images'] for step in rest] == [step['images'] for step in whole] and len(rest) == 4
    difference = max(abs(one['loss'] - other['loss']) for one, other in zip(whole, rest, strict=True))
    print(f'\n{task}, from {first} to {then} process(es): losses {[step["loss"] for step in whole]}, '
          f'largest difference {difference:.2e}')
    assert difference < 1e-5
