"""Timing on noisy machines: all candidates in turn, round after round, and medians at the end."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter, process_time

import torch

# on a machine that others use, too: seconds that its processors spent on this process, all threads together
CLOCKS = {'wall': perf_counter, 'cpu': process_time}


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 in float32 on GPUs.

    By default torch lets cuDNN round the inputs of convolutions to TF32 (10 bits of mantissa) on Ampere and newer, but
    does not round those of matrix products: a 1x1 convolution and a linear layer then differ.
    """
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def time_once(function: Callable[[], object], clock: str = 'wall') -> float:
    """Seconds of one call, by one of `CLOCKS`."""
    synchronize()
    start = CLOCKS[clock]()
    function()
    synchronize()
    return CLOCKS[clock]() - start


def interleaved_times(functions: dict[str, Callable[[], object]], rounds: int, warmup: int = 2,
                      clock: str = 'wall') -> dict[str, list[float]]:
    """Seconds of every call: in each round every function runs once, in turn, so drift hits all alike."""
    for function in functions.values():
        for _ in range(warmup):
            function()
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(time_once(function, clock))
    return times


def interleaved_medians(functions: dict[str, Callable[[], object]], rounds: int, warmup: int = 2,
                        clock: str = 'wall') -> dict[str, float]:
    """Median seconds of `interleaved_times`."""
    return {name: median(times) for name, times in interleaved_times(functions, rounds, warmup, clock).items()}
