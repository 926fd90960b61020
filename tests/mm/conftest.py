"""mmcv.ops on our operators, whatever mmcv is installed."""
import importlib
import pkgutil

import pytest

from convnext_dense.mm import operators


@pytest.fixture
def mmcv_ops(monkeypatch):
    """mmcv.ops on our operators, also where compiled ones are installed."""
    package = pytest.importorskip('mmcv.ops', reason='the operators exist for mmcv')
    stand_in = operators.StandIn()
    for found in pkgutil.iter_modules(package.__path__, 'mmcv.ops.'):
        module = importlib.import_module(found.name)
        if hasattr(module, 'ext_module'):
            monkeypatch.setattr(module, 'ext_module', stand_in)
    return package
