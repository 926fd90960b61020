"""Timing that survives a noisy machine: all candidates in turn, round after round, medians at the end."""
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_once(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    synchronize()
    start = perf_counter()
    function()
    synchronize()
    return perf_counter() - start


def interleaved_times(functions: dict[str, Callable[[], object]], rounds: int,
                      warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of every call: in each round every function runs once, in turn, so drift hits all alike."""
    for function in functions.values():
        for _ in range(warmup):
            function()
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(time_once(function))
    return times


def interleaved_medians(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of `interleaved_times`."""
    return {name: median(times) for name, times in interleaved_times(functions, rounds).items()}
