"""--shard: the parameters of DDP with half of the optimizer's state a process, and the same checkpoint files."""
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from shard_rank import HALF, arguments
from tool_runs import differing, free_port, kill, launch, must_run

from convnext_dense.checkpoints import read_checkpoint
from convnext_dense.config.model_checks import check_sharding
from convnext_dense.errors import UserError
from convnext_dense.optim.sharding import share

LAST = {'det': 'epoch_10.pth', 'seg': 'iter_20.pth'}


def tensors(node, name: str = '') -> dict[str, torch.Tensor]:
    """Every tensor in nested dicts by its path."""
    if isinstance(node, torch.Tensor):
        return {name: node}
    found = {}
    for key, value in node.items() if isinstance(node, dict) else ():
        found |= tensors(value, f'{name}/{key}')
    return found


@pytest.mark.slow
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_shards_train_as_ddp(task, shapes, tmp_path):
    """20 iterations with averaged weights, accumulation, clipping and layer decay; then resumed with and without."""
    port = free_port()
    ranks = [launch([sys.executable, Path(__file__).with_name('shard_rank.py'), task, shapes, tmp_path],
                    tmp_path / f'{rank}.log', tmp_path, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                    MASTER_ADDR='127.0.0.1', MASTER_PORT=port) for rank in (0, 1)]
    try:
        codes = [rank.wait(600) for rank in ranks]
    finally:
        for rank in ranks:
            kill(rank)
    assert codes == [0, 0], ''.join(file.read_text()[-3000:] for file in tmp_path.glob('*.log'))

    whole, shards, resumed = (tmp_path / name / LAST[task] for name in ('whole', 'shards', 'resumed'))
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        ours, ddp, again = (tensors(read_checkpoint(file)[part]) for file in (shards, whole, resumed))
        assert list(ours) == list(ddp) == list(again), 'the file has the same entries, in the same order'
        difference = max(float((ours[name].double() - ddp[name].double()).abs().max()) for name in ddp)
        unequal = [name for name in ours if not torch.equal(ours[name], again[name])]
        print(f'{task}, {part}: {len(ours)} tensors, largest difference from DDP {difference:.1e}, {len(unequal)} '
              'unequal after resumption')
        assert difference <= 1e-6 and not unequal
        assert [value.stride() for value in ours.values()] == [value.stride() for value in ddp.values()]
    best = [[file.name for file in (tmp_path / name).glob('best_*.pth')] for name in ('whole', 'shards', 'resumed')]
    assert best[0] == best[1] == best[2] and bool(best[0]) == (task == 'seg')
    one, two = (json.loads((tmp_path / f'rank{rank}.json').read_text()) for rank in (0, 1))
    print(f'{task}: optimizer state of a process: {one["whole"]} bytes with DDP, {one["shards"]} and {two["shards"]} '
          'with --shard')
    assert one['whole'] == two['whole'] and one['shards'] + two['shards'] == one['whole']
    assert max(one['shards'], two['shards']) < 0.55 * one['whole']

    if task == 'det':
        return
    # one process, without --shard, continues with the sharded file as it does with DDP's
    for name, source in (('from_shards', 'shards'), ('from_whole', 'whole')):
        must_run('train', *arguments(task, shapes, tmp_path, name), '--resume', tmp_path / source / HALF[task])
    assert differing(tmp_path / 'from_shards' / LAST[task], tmp_path / 'from_whole' / LAST[task]) == []


@pytest.mark.parametrize('sizes, processes', [([5, 1, 1, 3, 2, 4], 2), ([100, 1], 3), ([7] * 9, 4)])
def test_shares_are_even(sizes, processes):
    """No process could give its smallest parameter to the one with the least and be better off."""
    owners = share(sizes, processes)
    owned = [[size for size, owner in zip(sizes, owners, strict=True) if owner == rank] for rank in range(processes)]
    for mine in owned:
        assert not mine or sum(mine) - min(mine) <= min(map(sum, owned))


@pytest.mark.parametrize('change, processes, message', [
    ({}, 1, 'there is only one: start more with tools/dist_train.sh'),
    (dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')), 2, 'model_wrapper_cfg names MMFullySharded'),
    (dict(optim_wrapper=dict(type='ApexOptimWrapper')), 2, 'optim_wrapper names ApexOptimWrapper'),
    (dict(optim_wrapper=dict(optimizer=dict(type='LBFGS'))), 2, 'the state of LBFGS cannot be divided'),
])
def test_what_cannot_be_sharded(change, processes, message):
    cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))))
    check_sharding(cfg, 2)
    cfg.merge_from_dict(change)
    with pytest.raises(UserError, match=message):
        check_sharding(cfg, processes)
