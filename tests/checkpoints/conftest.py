"""Fixtures of the checkpoint tests, and the two tables that they print at the end."""
import shutil

import numpy as np
import pytest
import torch
from random_weights import PARITY, ROUND_TRIPS


@pytest.fixture(autouse=True)
def no_gigabytes_left(tmp_path):
    """Remove what a test wrote: pytest keeps the folders of three sessions."""
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def image() -> torch.Tensor:
    """Two images of 64x96 pixels."""
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope='session')
def vectors(reference_dir):
    """Official vectors: name -> (state dict, the other arrays as tensors)."""
    def load(name):
        arrays = {key: torch.from_numpy(np.asarray(value))
                  for key, value in np.load(reference_dir / f'vectors/{name}.npz').items()}
        prefix = 'state_dict/' if any(key.startswith('state_dict/') for key in arrays) else ''
        state = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
        return state, arrays
    return load


@pytest.fixture
def tiny_arch() -> dict:
    """The architecture of the official vectors."""
    return dict(depths=[2, 1, 3, 2], channels=[8, 16, 24, 40])


def pytest_terminal_summary(terminalreporter):
    """Print the tables after the tests that filled them."""
    if PARITY:
        terminalreporter.section('largest feature difference over largest feature, by source format')
        for format, version, size, saved, difference in sorted(PARITY):
            terminalreporter.line(f'{format:34} {version}  {size:6} {saved:26} {difference:.1e}')
    if ROUND_TRIPS:
        terminalreporter.section('round trips (tensors equal bit by bit)')
        for path, version, size, tensors, note in ROUND_TRIPS:
            terminalreporter.line(f'{path:50} {version}  {size:6} {tensors:4} tensors {note}')
