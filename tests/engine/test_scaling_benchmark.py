"""The model of scaling: its formulas against simulations, torch's own buckets and their limits; not its speed."""
import importlib
import json
import math
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from mmengine.registry import MODELS, DefaultScope

from convnext_dense.benchmark.scaling import GPUS
from convnext_dense.benchmark.scaling_model import (
    BUCKET,
    FIRST_BUCKET,
    Link,
    Network,
    Step,
    all_reduce,
    buckets,
    efficiency,
    networks,
    ring,
    step_seconds,
    synchronized,
    tree,
)
from convnext_dense.benchmark.scaling_ranks import fit_link
from convnext_dense.config import load_config
from convnext_dense.errors import UserError

LINK = Link(1e9, 1e-5)
FREE = Network('free', Link(math.inf, 0.0), Link(math.inf, 0.0))
MIB = 2**20
# 60 gradients, complete one after the other during the backward pass
STEP = Step(0.05, 0.1, 0.01, tuple((0.1 * (number + 1) / 60, (number % 7 + 1) * MIB) for number in range(60)), images=2)


@pytest.mark.parametrize('ranks', [1, 2, 3, 8])
def test_the_ring_is_that_of_a_simulation_which_adds_up(ranks):
    """Every rank sends one part to the next in each round, until all have all sums."""
    parts = [[{(rank, part)} for part in range(ranks)] for rank in range(ranks)]
    whole = [[{(rank, part) for rank in range(ranks)} for part in range(ranks)]] * ranks
    seconds, rounds = 0.0, 0
    while parts != whole:
        sent = [(rank, (rank - rounds) % ranks) for rank in range(ranks)]
        received = [(rank, part, set(parts[rank][part])) for rank, part in sent]
        for rank, part, values in received:
            parts[(rank + 1) % ranks][part] = parts[(rank + 1) % ranks][part] | values
        seconds += LINK.latency + 6e6 / ranks / LINK.bandwidth
        rounds += 1
    assert ring(6e6, ranks, LINK) == pytest.approx(seconds)


@pytest.mark.parametrize('ranks', [1, 2, 5, 64])
def test_a_tree_has_as_many_messages_as_levels_up_and_down(ranks):
    reached, levels = 1, 0
    while reached < ranks:
        reached, levels = 2 * reached, levels + 1
    assert tree(0, ranks, LINK) == pytest.approx(2 * levels * LINK.latency)
    assert tree(1e12, ranks, LINK) == pytest.approx(2 * 1e12 / LINK.bandwidth if ranks > 1 else 0, rel=1e-3)


def test_an_all_reduce_over_nodes():
    network = Network('', Link(1e11, 1e-6), Link(8e9, 1e-5), 8)
    assert all_reduce(1e8, 1, network) == 0
    for gpus in (2, 8):
        assert all_reduce(1e8, gpus, network) == pytest.approx(ring(1e8, gpus, network.inside))
    # each GPU has an eighth of the data and of the node's link: as if one had all of both
    between = min(ring(1e8, 4, Link(8e9, 1e-5)), tree(1e8, 4, Link(8e9, 1e-5)))
    assert all_reduce(1e8, 32, network) == pytest.approx(ring(1e8, 8, network.inside) + between)
    times = [all_reduce(1e8, gpus, network) for gpus in (1, 2, 4, *GPUS)]
    assert times == sorted(times)


def test_buckets_are_torchs():
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 3 * MIB, (200,), generator=generator).tolist()
    tensors = [torch.empty(size, device='meta') for size in sizes]
    assigned, _ = dist._compute_bucket_assignment_by_size(tensors, [FIRST_BUCKET, BUCKET])
    expected = [(max(bucket) / 10, sum(4 * sizes[index] for index in bucket)) for bucket in assigned]
    assert buckets([(index / 10, 4 * size) for index, size in enumerate(sizes)]) == expected and len(expected) > 10


def test_overlap_lies_between_its_limits():
    sizes = [size for _, size in buckets(STEP.gradients)]
    for factor in (0.0, 1e-11, 1e-10, 1e-9, 1e-7):
        seconds = synchronized(STEP, lambda size, factor=factor: factor * size)
        added = seconds - STEP.compute
        everything = factor * sum(sizes)
        assert max(0, everything - STEP.backward) - 1e-12 <= added <= everything + 1e-12
        assert added >= factor * sizes[-1] - 1e-12  # the last bucket is complete when the backward pass ends
    late = replace(STEP, gradients=tuple((STEP.backward, size) for _, size in STEP.gradients))
    assert synchronized(late, lambda size: 1e-9 * size) == pytest.approx(STEP.compute + 1e-9 * STEP.gradient_bytes)


def test_limits_of_efficiency():
    for network in (*networks(), FREE):
        assert efficiency(STEP, 1, network) == 1
        shares = [efficiency(STEP, gpus, network) for gpus in GPUS]
        assert shares == sorted(shares, reverse=True) and 0 < shares[-1] <= 1
    assert [efficiency(STEP, gpus, FREE) for gpus in GPUS] == [1] * len(GPUS)
    by_name = {network.name: efficiency(STEP, 64, network) for network in networks()}
    assert list(by_name.values()) == sorted(by_name.values(), reverse=True) and min(by_name.values()) < 0.9
    bound = replace(STEP, loader_rate=0.5)  # 4 s for two images, which no network is slower than
    for network in networks():
        assert step_seconds(bound, 1024, network) == step_seconds(bound, 1, network) == 4
        assert efficiency(bound, 1024, network) == 1
    slower = STEP.lasting(10 * STEP.compute)
    assert slower.compute == pytest.approx(10 * STEP.compute) and slower.gradient_bytes == STEP.gradient_bytes
    assert all(efficiency(slower, gpus, network) > efficiency(STEP, gpus, network)
               for network in networks()[2:] for gpus in GPUS[1:])


def test_a_link_is_found_from_its_own_all_reduces():
    found = fit_link([(size, ring(size, 2, LINK)) for size in (2**16, 2**20, 2**24)])
    assert found.bandwidth == pytest.approx(LINK.bandwidth) and found.latency == pytest.approx(LINK.latency)


@pytest.mark.slow
def test_the_command_measures_and_checks_itself(make_shapes, tmp_path, repo_root, capsys):
    config, out = repo_root / 'tests/tools/tiny_seg.py', tmp_path / 'out.json'
    importlib.import_module('convnext_dense.cli.benchmark').main(
        ['scaling', str(config), '--rounds', '2', '--threads', '1', '--device', 'cpu', '--workers', '1', '--data-root',
         str(make_shapes(12, 6) / 'ade'), '--json', str(out)])
    result, text = json.loads(out.read_text()), capsys.readouterr().out
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(load_config(str(config)).model)
    assert result['step']['gradient_bytes'] == 4 * sum(parameter.numel() for parameter in model.parameters())
    assert 0 < result['step']['loader_rate'] < 1e6
    checks = {check['what']: check for check in result['checks']}
    assert {'one process, 1 worker(s)', 'two processes', 'all-reduce of 1 MiB, two processes'} <= checks.keys()
    assert all(0 < check[key] < 600 for check in checks.values() for key in ('predicted', 'measured'))
    assert checks['two processes']['predicted'] >= checks['two processes, if communication were free']['predicted']
    assert [row['gpus'] for row in result['predicted']] == list(GPUS)
    assert '| 1024 | ' in text and 'predicted ms | measured ms | error' in text
    with pytest.raises(UserError, match='must be more than 0'):
        importlib.import_module('convnext_dense.cli.benchmark').main(['scaling', str(config), '--images', '0'])
