"""Samples of an iteration: mmengine's order, whatever the number of processes, workers and earlier iterations."""
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler

from convnext_dense.engine.loops import split
from convnext_dense.engine.random_state import random_state
from convnext_dense.engine.runner import DenseRunner
from convnext_dense.engine.samples import BatchPlan, StepBatchSampler, plan_batches
from convnext_dense.errors import UserError


class Images(BaseDataset):
    """Draws from every generator; some images are upright."""

    def load_data_list(self) -> list[dict]:
        return [dict(width=10 + index % 3, height=11) for index in range(22)]

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, random.random(), np.random.random(), torch.rand(1).item()


@pytest.fixture(scope='module')
def images() -> Images:
    return Images()


def on_all_processes(sampler, plan: BatchPlan, batch_size: int = 4, done: int = 0):
    """Each iteration's samples, those of all processes together, sorted; and every process's number of iterations."""
    ranks = []
    for rank in range(plan.processes):
        batches = StepBatchSampler(sampler, batch_size, plan, seed=5, rank=rank)
        batches.begin(1, done)
        ranks.append([batch for batch, _ in zip(batches, range(9), strict=False)])
    together = [sorted(sum(batches, [])) for batches in zip(*ranks, strict=True)]
    return together, [len(batches) for batches in ranks]


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
@pytest.mark.parametrize('drop_last', [False, True])
def test_one_process_has_mmengines_batches(kind, drop_last, images):
    sampler = kind(images, seed=5)
    sampler.set_epoch(1)
    expected = [batch for batch, _ in zip(BatchSampler(sampler, 4, drop_last), range(9), strict=False)]
    ours = StepBatchSampler(kind(images), 4, BatchPlan(1, 4), seed=5, drop_last=drop_last)
    ours.begin(1, 0)
    assert [[index for index, _ in batch] for batch, _ in zip(ours, range(9), strict=False)] == expected
    assert len(ours) == len(BatchSampler(sampler, 4, drop_last))


def test_aspect_ratios_are_grouped_as_mmdet_does(images):
    samplers = pytest.importorskip('mmdet.datasets.samplers')
    expected = list(samplers.AspectRatioBatchSampler(DefaultSampler(images, seed=5), 4))
    ours = StepBatchSampler(DefaultSampler(images), 4, BatchPlan(1, 4), seed=5,
                            batches=dict(type='mmdet.AspectRatioBatchSampler'))
    assert [[index for index, _ in batch] for batch in ours] == expected


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
@pytest.mark.parametrize('processes, batch_size', [(2, 2), (1, 2), (4, 4), (2, 4), (4, 1)])
def test_the_order_does_not_depend_on_the_number_of_processes(kind, processes, batch_size, images):
    """Samples and the keys of their random numbers; an incomplete iteration is filled where several share it."""
    expected, (count,) = on_all_processes(kind(images), BatchPlan(1, 4))
    plan = plan_batches(batch_size, processes, 4)
    assert plan.images == 4
    together, counts = on_all_processes(kind(images), plan, batch_size)
    assert counts == [count] * processes
    assert together[:5] == expected[:5]
    assert set(expected[5]) <= set(together[5]) and len(together[5]) == 4
    assert together[6:] == expected[6:]


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
@pytest.mark.parametrize('done', [1, 4, 6])
def test_iterations_that_are_done_are_left_out(kind, done, images):
    plan = plan_batches(2, 2)
    whole, _ = on_all_processes(kind(images), plan, 2)
    rest, _ = on_all_processes(kind(images), plan, 2, done=done)
    assert rest[:len(whole) - done] == whole[done:]


def test_lengths_are_those_of_the_passes(images):
    for processes in (1, 2, 3):
        for batch_size in (1, 2, 4, 5):
            for drop_last in (False, True):
                for plan in (plan_batches(batch_size, processes), BatchPlan(processes, batch_size, 3)):
                    batches = StepBatchSampler(DefaultSampler(images), batch_size, plan, drop_last=drop_last)
                    assert len(batches) == len(list(batches)) == batches.passed, (plan, drop_last)


@pytest.mark.parametrize('images, processes, batch_size, expected', [
    (None, 3, 2, BatchPlan(3, 2)), (16, 4, 2, BatchPlan(4, 2, 2)), (16, 1, 2, BatchPlan(1, 2, 8)),
    (16, 16, 2, BatchPlan(16, 1)), (16, 8, 4, BatchPlan(8, 2))])
def test_plans_keep_the_images_of_an_iteration(images, processes, batch_size, expected):
    assert plan_batches(batch_size, processes, images) == expected


@pytest.mark.parametrize('processes, batch_size', [(3, 2), (5, 4), (32, 2)])
def test_a_number_of_processes_that_cannot_keep_them(processes, batch_size):
    with pytest.raises(UserError, match=f'16 images an iteration, which {processes} process'):
        plan_batches(batch_size, processes, 16)


def test_another_sampler_decides_itself(images):
    class Backwards(DefaultSampler):
        def __iter__(self):
            return iter(range(len(self.dataset) - 1, -1, -1))

    batches = list(StepBatchSampler(Backwards(images), 4, BatchPlan(2, 4), rank=1, seed=5))
    assert [index for batch in batches for index, _ in batch] == list(range(21, -1, -1))
    assert all(key[-1] == 1 for batch in batches for _, key in batch), "random numbers are this process's own"


def test_samples_are_the_same_with_and_without_workers(images):
    def load(workers: int, seed: int = 5) -> list:
        batches = dict(type='StepBatchSampler', plan=BatchPlan(1, 4), seed=seed)
        loader = DenseRunner.build_dataloader(
            dict(batch_size=4, num_workers=workers, sampler=dict(type='DefaultSampler', shuffle=True),
                 batch_sampler=batches, dataset=images, collate_fn=dict(type='default_collate')))
        loader.batch_sampler.begin(2, 1)
        return [torch.stack([column.double() for column in batch], 1) for batch in loader]

    before = random_state()
    alone, two, another = load(0), load(2), load(0, seed=6)
    after = random_state()
    assert all(torch.equal(one, other) for one, other in zip(alone, two, strict=True)) and len(alone) == 5
    assert not any(torch.equal(one, other) for one, other in zip(alone, another, strict=True))
    drawn = torch.cat(alone)[:, 1:]
    assert drawn.unique().numel() == drawn.numel(), 'no number is drawn twice'
    assert before['python'] == after['python'] and np.array_equal(before['numpy'][1], after['numpy'][1])


def test_a_batch_is_split_into_passes():
    batch = dict(inputs=list(range(5)), more=dict(data_samples=torch.arange(5)))
    first, second = split(batch, 3, 2)
    assert first['inputs'] == [0, 1, 2] and second['inputs'] == [3, 4]
    assert second['more']['data_samples'].tolist() == [3, 4]
