"""Random state of a process, saved in checkpoints and restored when a run resumes."""
import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """State of the generators of python, numpy and torch: tensors, numbers and tuples only, which are safe to load."""
    _, keys, *rest = np.random.get_state()
    state = {'python': random.getstate(), 'numpy': (torch.from_numpy(keys.astype(np.int64)), *rest),
             'torch': torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators to what `random_state` returned, in this or another process."""
    random.setstate(state['python'])
    keys, *rest = state['numpy']
    np.random.set_state(('MT19937', keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


class RestoreAfterReplay:
    """A loop's data iterator that sets the random state once the batches before the checkpoint have been replayed.

    mmengine's iteration-based loop resumes by loading all batches up to the checkpoint again; onedl-mmengine's skips
    them in the sampler where it can. Without workers loading advances the generators of this process, and no hook is
    called between the last of these batches and the first new one.

    Args:
        iterator: the loop's own.
        replayed: number of batches that are loaded again.
        state: as `random_state` returned it.
    """

    def __init__(self, iterator, replayed: int, state: dict[str, Any]):
        self.iterator, self.replayed, self.state = iterator, replayed, state

    def __iter__(self):
        return self

    def __next__(self):
        if self.replayed == 0:
            if hasattr(self.iterator, '_ensure_iterator'):
                self.iterator._ensure_iterator()  # onedl's builds it late, which draws a number
            set_random_state(self.state)
        self.replayed -= 1
        return next(self.iterator)

    def skip_iter(self, num_iters: int) -> None:
        """How onedl-mmengine's loop asks for the replay."""
        self.iterator.skip_iter(num_iters)
        self.replayed -= num_iters


class RestOfEpoch:
    """A loop's data loader without the first batches of an epoch, for a run that stopped in the middle of it.

    They are loaded and thrown away, then the random state is set.

    Args:
        loader: the loop's own; other attributes are its.
        skipped: number of batches that the run has trained on already.
        state: as `random_state` returned it; None leaves the generators as they are.
    """

    def __init__(self, loader, skipped: int, state: dict[str, Any] | None):
        self.loader, self.skipped, self.state = loader, skipped, state

    def __getattr__(self, name: str):
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader) - self.skipped

    def __iter__(self):
        batches = iter(self.loader)
        for _ in range(self.skipped):
            next(batches)
        if self.state is not None:
            set_random_state(self.state)
        yield from batches
