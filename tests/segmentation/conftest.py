"""Types without a scope are mmseg's, whatever ran before."""
import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield
