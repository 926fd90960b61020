"""Random numbers that depend on what they are drawn for, not on what was drawn before."""
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """State of the generators of python, numpy and torch (CPU)."""
    return {'python': random.getstate(), 'numpy': np.random.get_state(), 'torch': torch.get_rng_state()}


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators to what `random_state` returned."""
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'])


def seed_generators(*key: int, gpu: bool = False) -> None:
    """Seed python, numpy and torch with a hash of ``key``, non-negative integers; with ``gpu`` torch's GPUs too."""
    words = np.random.SeedSequence(key).generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(words[1:2].view(np.uint32))
    (torch.manual_seed if gpu else torch.default_generator.manual_seed)(int(words[2]))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Draw the numbers of ``key`` inside, and continue afterwards as if nothing had been drawn."""
    state = random_state()
    try:
        seed_generators(*key)
        yield
    finally:
        set_random_state(state)
