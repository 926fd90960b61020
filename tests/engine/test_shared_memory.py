"""Too little shared memory for a loader's workers is found before they start."""
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from convnext_dense.engine.shared_memory import check_shared_memory
from convnext_dense.errors import UserError

MIB = 2**20


class Images(Dataset):
    """Samples with a tensor of 1 MiB and, at every fourth index, one of 2 MiB; draws numbers as augmentations do."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        random.random(), np.random.rand(), torch.rand(1)
        return dict(inputs=torch.zeros(MIB * (2 if index % 4 == 0 else 1), dtype=torch.uint8), path='a.jpg',
                    data_samples=[np.zeros(9 * MIB)])  # an array is sent through a pipe


@pytest.fixture
def free(monkeypatch):
    """Set how much shared memory is free, in MiB."""
    def set_free(mebibytes):
        monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=mebibytes * MIB))
    return set_free


def loader(**options):
    return DataLoader(Images(), batch_size=4, **{'num_workers': 3, 'prefetch_factor': 2, **options})


def test_what_is_needed_by_closed_form(free, monkeypatch):
    need = 3 * 2 * 4 * 2  # workers, batches per worker, samples, MiB
    free(need)
    check_shared_memory(loader())
    free(need - 1)
    with pytest.raises(UserError, match=rf'/dev/shm has {need - 1}.0 MiB free, but .* need about {need}.0 MiB '
                                        r'\(6 batches of 4\): .*--shm-size=8g.*train_dataloader.num_workers=1'):
        check_shared_memory(loader())
    check_shared_memory(loader(num_workers=0, prefetch_factor=None))
    free(2 * need - 1)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    with pytest.raises(UserError, match=f'need about {2 * need}.0 MiB'):
        check_shared_memory(loader())


def test_looking_draws_no_random_number(free):
    free(1000)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    check_shared_memory(loader())
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())
