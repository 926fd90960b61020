"""Data loaders' workers: one core each, and the random numbers that mmengine gives them."""
import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner

from convnext_dense.engine.runner import DenseRunner


class Probe(BaseDataset):
    """What a worker has set, and draws."""

    def load_data_list(self) -> list[dict]:
        return [dict(index=index) for index in range(4)]

    def __getitem__(self, index: int) -> tuple[int, int, float]:
        return cv2.getNumThreads(), torch.get_num_threads(), np.random.random()


@pytest.fixture
def four_threads():
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    assert cv2.getNumThreads() == 4
    yield
    cv2.setNumThreads(before)


@pytest.mark.parametrize('workers', [1, 2])
def test_a_worker_uses_one_core_and_draws_as_mmengines(workers, four_threads):
    def read(runner: type) -> list[list[float]]:
        loader = dict(batch_size=1, num_workers=workers, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=Probe(), collate_fn=dict(type='default_collate'))
        return [[float(value) for value in batch] for batch in runner.build_dataloader(loader, seed=7)]

    ours, mmengines = read(DenseRunner), read(Runner)
    assert [row[:2] for row in ours] == [[1, 1]] * 4
    assert [row[:2] for row in mmengines] == [[4, 1]] * 4  # forked from a process whose OpenCV has four threads
    assert [row[2] for row in ours] == [row[2] for row in mmengines]
    assert cv2.getNumThreads() == 4


def test_a_thread_pins_batches_where_there_is_a_gpu(monkeypatch):
    def pinned(**options) -> bool:
        loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=Probe(),
                      collate_fn=dict(type='default_collate'), **options)
        return DenseRunner.build_dataloader(loader).pin_memory

    assert not pinned()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert pinned() and not pinned(pin_memory=False)
