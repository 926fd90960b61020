"""The data sets that converters and checker are tested on: generated ones, and on top the real ones where they are."""
from pathlib import Path

import pytest
from clean_copies import make_clean
from generated_data import make_generated


@pytest.fixture(scope='session')
def generated(tmp_path_factory) -> Path:
    """coco/, pennfudan/ and camvid/ as `real_data` has them, small and made up."""
    return make_generated(tmp_path_factory.mktemp('data') / 'generated')


@pytest.fixture(scope='session', params=['generated', 'real_data'])
def data_sets(request) -> Path:
    """Both, one after the other; without real data their half skips."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope='session')
def clean(data_sets, tmp_path_factory) -> Path:
    """Small sets without any finding but `category-ids`, made of `data_sets`."""
    folder = tmp_path_factory.mktemp('clean')
    make_clean(data_sets, folder)
    return folder
