"""Whether shared memory holds the batches that the workers of a data loader pass on."""
import os
import shutil
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from ..errors import UserError
from .random_state import random_state, set_random_state

FOLDER = Path('/dev/shm')
SAMPLES = 4  # that are loaded, evenly spaced


def check_shared_memory(loader: DataLoader) -> None:
    """Refuse a loader whose workers need more shared memory than is free: torch hangs when it is full.

    Before the first batch is taken, every worker has loaded ``prefetch_factor`` batches. Their size is estimated from
    the largest of a few samples. Loaders without workers, and systems without /dev/shm, pass.

    Raises:
        UserError: says how much is needed and free, and how to get more.
    """
    if loader.num_workers == 0 or not FOLDER.is_dir():
        return
    free = shutil.disk_usage(FOLDER).free
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))  # set by torchrun: processes of this machine
    batches = processes * loader.num_workers * loader.prefetch_factor
    batch_size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 1)
    need = batches * batch_size * largest_sample(loader.dataset)
    if need > free:
        raise UserError(
            f'{FOLDER} has {free / 2**20:.1f} MiB free, but the workers of {type(loader.dataset).__name__} need about '
            f'{need / 2**20:.1f} MiB ({batches} batches of {batch_size}): give the container more (docker run '
            '--shm-size=8g; the default is 64 MB), remove old files there, or use fewer workers (--cfg-options '
            'train_dataloader.num_workers=1)')


def largest_sample(dataset) -> int:
    """Bytes in tensors of the largest of a few samples; the random state is not changed."""
    state, count = random_state(), len(dataset)
    try:
        return max(tensor_bytes(dataset[index]) for index in range(0, count, max(1, count // SAMPLES)))
    finally:
        set_random_state(state)


def tensor_bytes(sample) -> int:
    """Bytes of all tensors in a sample: only tensors are passed in shared memory."""
    if isinstance(sample, torch.Tensor):
        return sample.nbytes
    if isinstance(sample, dict):
        return sum(map(tensor_bytes, sample.values()))
    if isinstance(sample, (list, tuple)):
        return sum(map(tensor_bytes, sample))
    if hasattr(sample, 'all_items'):  # mmengine's data elements
        return sum(tensor_bytes(value) for _, value in sample.all_items())
    if hasattr(sample, 'tensor'):  # mmdet's boxes
        return tensor_bytes(sample.tensor)
    return 0
