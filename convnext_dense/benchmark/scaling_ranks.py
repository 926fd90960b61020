"""What one or two processes measure for the model of scaling: a step by part, all-reduces, a synchronized step."""
import json
import tempfile
import time
import warnings
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm

from ..errors import UserError
from ..mm.device import use_device
from .made_batches import made_samples
from .scaling_model import Link, Step
from .timing import synchronize
from .training import Trainer, build_trainers

SIZES = tuple(2**power for power in (16, 18, 20, 22, 24))  # bytes of the all-reduces that are timed


def build_trainer(cfg: Config, device: str) -> Trainer:
    """The model of a config with its optimizer; SyncBN is BN, as in training on CPUs, whose cost is not modelled."""
    trainer = build_trainers(cfg, device, compare=False)['ours']
    trainer.model = revert_sync_batchnorm(trainer.model)
    return trainer


class GradientClock:
    """Notes when the backward pass of a step begins and ends, and when each gradient is complete."""

    def __init__(self, trainer: Trainer, device: str):
        self.trainer, self.device, self.backward = trainer, device, trainer.optim_wrapper.backward
        trainer.optim_wrapper.backward = self._backward
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._complete)

    def _now(self):
        if self.device == 'cpu':
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _since(self, start, end) -> float:
        return end - start if self.device == 'cpu' else start.elapsed_time(end) / 1e3

    def _backward(self, *args, **kwargs) -> None:
        self.began, self.gradients = self._now(), []
        self.backward(*args, **kwargs)
        self.ended = self._now()

    def _complete(self, parameter: torch.Tensor) -> None:
        self.gradients.append((self._now(), parameter.numel() * parameter.element_size()))

    def step(self, run) -> tuple[float, float, float, list[tuple[float, int]]]:
        """Seconds before, of and after the backward pass of a step, and its gradients as of `Step`."""
        start = self._now()
        run()
        end = self._now()
        synchronize()
        return (self._since(start, self.began), self._since(self.began, self.ended), self._since(self.ended, end),
                [(self._since(self.began, when), size) for when, size in self.gradients])


def median_step(runs: list, images: int) -> Step:
    """The run whose step took the median time, which is one that happened."""
    before, backward, after, gradients = sorted(runs, key=lambda run: sum(run[:3]))[len(runs) // 2]
    return Step(before, backward, after, tuple(gradients), images)


def measure_alone(trainer: Trainer, batch: dict, device: str, rounds: int) -> Step:
    """A step of one process."""
    clock = GradientClock(trainer, device)
    runs = [clock.step(lambda: trainer.step(deepcopy(batch))) for _ in range(rounds + 2)][2:]
    return median_step(runs, len(batch['inputs']))


def measure_loop(trainer: Trainer, batch: dict, dataset, workers: int, iterations: int) -> tuple[float, float]:
    """Images per second that one worker loads alone, and seconds of an iteration that waits for loaded images."""
    images = len(batch['inputs'])
    order = [index % len(dataset) for index in range(images * (iterations + 3))]
    _ = dataset[0]
    start = time.perf_counter()
    for index in order[:images * iterations]:
        _ = dataset[index]
    rate = images * iterations / (time.perf_counter() - start)
    loader = torch.utils.data.DataLoader(dataset, images, sampler=order, num_workers=workers,
                                         collate_fn=pseudo_collate)
    times = []
    for _ in loader:
        trainer.step(deepcopy(batch))
        synchronize()
        times.append(time.perf_counter())
    return rate, (times[-1] - times[2]) / (len(times) - 3)


def measure_two(cfg: Config, samples: tuple, device: str, rounds: int) -> dict:
    """Two processes at once: `Step` without communication, ``link`` and ``synchronized`` seconds with it.

    Raises:
        UserError: one of them failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        threads = max(1, torch.get_num_threads() // 2)
        context = torch.multiprocessing.spawn(_rank, (folder, cfg, samples, device, rounds, threads), nprocs=2,
                                              join=False)
        try:
            while not context.join():
                pass
        except Exception as error:
            raise UserError(f'benchmark scaling: one of two processes failed, {str(error).strip().splitlines()[-1]}'
                            ) from error
        ranks = [json.loads(Path(folder, f'{rank}.json').read_text()) for rank in range(2)]
    slow = max(ranks, key=lambda rank: sum(rank['step'][:3]))
    return dict(step=median_step([slow['step']], samples[0]), link=fit_link(ranks[0]['all_reduce']),
                all_reduce=ranks[0]['all_reduce'], synchronized=max(rank['synchronized'] for rank in ranks))


def _rank(rank: int, folder: str, cfg: Config, samples: tuple, device: str, rounds: int, threads: int) -> None:
    warnings.simplefilter('ignore')
    torch.set_num_threads(threads)
    use_device(device)
    if device == 'cuda':
        torch.cuda.set_device(rank)
    dist.init_process_group('nccl' if device == 'cuda' else 'gloo', init_method=f'file://{folder}/meet', rank=rank,
                            world_size=2)
    trainer = build_trainer(cfg, device)
    batch = pseudo_collate(made_samples(trainer.model, *samples))
    clock = GradientClock(trainer, device)
    model = MMDistributedDataParallel(trainer.model, broadcast_buffers=False,
                                      device_ids=[rank] if device == 'cuda' else None,
                                      find_unused_parameters=cfg.get('find_unused_parameters', False))
    alone, together = [], []
    for number in range(rounds + 2):  # in turn, so that drift hits both alike
        for communicates in (False, True):
            with nullcontext() if communicates else model.no_sync():
                own = deepcopy(batch)
                dist.barrier()
                start = time.perf_counter()
                found = clock.step(lambda own=own: model.train_step(own, trainer.optim_wrapper))
                seconds = time.perf_counter() - start
            if number > 1:  # after warming up
                together.append(seconds) if communicates else alone.append(found)
    result = dict(all_reduce=_time_all_reduces(device), synchronized=median(together),
                  step=sorted(alone, key=lambda run: sum(run[:3]))[len(alone) // 2])
    Path(folder, f'{rank}.json').write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


def _time_all_reduces(device: str) -> list[tuple[int, float]]:
    found = []
    for size in SIZES:
        values, times = torch.zeros(size // 4, device=device), []
        for _ in range(7):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(values)
            synchronize()
            times.append(time.perf_counter() - start)
        found.append((size, median(times[1:])))
    return found


def fit_link(measured: list[tuple[int, float]]) -> Link:
    """The link with which `scaling_model.ring` of two ranks fits measured all-reduces best, by relative error."""
    sizes, seconds = np.array(measured, float).T
    columns = np.stack([sizes, np.full(len(sizes), 2.0)], 1) / seconds[:, None]
    per_byte, latency = np.linalg.lstsq(columns, np.ones(len(sizes)), rcond=None)[0]
    return Link(1 / max(per_byte, 1e-15), max(latency, 0.0))
