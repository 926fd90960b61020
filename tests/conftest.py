"""Fixtures shared by all tests, and the thread settings that keep two-core machines from thrashing."""
import gc
import os
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest  # noqa: E402
import torch  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402

import convnext_dense  # noqa: E402, F401  (prepares the stack before any test imports mmdet or mmseg)

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)


def pytest_collection_finish():
    """Leave what the imports made out of later garbage collections: mmengine asks for one with every data set."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()  # libraries that count what is left at the end would report it


@pytest.fixture(scope='session', autouse=True)
def cache_of_the_tests(tmp_path_factory):
    """Indexes of annotations go into a folder of the tests, not the user's."""
    os.environ['CONVNEXT_DENSE_CACHE'] = str(tmp_path_factory.mktemp('cache'))


@pytest.fixture(scope='session')
def repo_root() -> Path:
    """The checkout under test."""
    return ROOT


@pytest.fixture(scope='session')
def reference_dir() -> Path:
    """The published numbers and official vectors (see tests/data/reference/README.md)."""
    return ROOT / 'tests/data/reference'


@pytest.fixture(scope='session')
def real_data() -> Path:
    """Folder with real COCO, ADE20K, Penn-Fudan and CamVid subsets; skips where there is none."""
    folder = Path(os.environ.get('CONVNEXT_DENSE_DATA', ROOT / '../shared/data')).resolve()
    if not (folder / 'coco').is_dir():
        pytest.skip(f'no real data at {folder}: point CONVNEXT_DENSE_DATA at a folder with coco/ and ade/')
    return folder


@pytest.fixture(scope='session')
def make_shapes(tmp_path_factory):
    """make_shapes(train, val, size=64) -> a folder with generated images of that size, as coco/ and ade/."""
    made = {}

    def make(train: int, val: int, size: int = 64) -> Path:
        from convnext_dense.datasets.shapes import ShapesParams, generate_shapes
        if (train, val, size) not in made:
            made[train, val, size] = tmp_path_factory.mktemp('data') / 'shapes'
            generate_shapes(made[train, val, size], ShapesParams(seed=0, train=train, val=val, size=size))
        return made[train, val, size]
    return make


@pytest.fixture(autouse=True)
def no_logger_of_an_earlier_test():
    """A logger that a test leaves behind writes to that test's captured, by then closed, output."""
    yield
    MMLogger._instance_dict.clear()
