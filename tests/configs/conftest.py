"""Reference tables that several tests of the configs read."""
import json

import pytest


@pytest.fixture(scope='session')
def official_layer_decay(reference_dir) -> dict:
    """{row: {parameter: [lr multiplier, weight decay]}} of the official constructor."""
    return json.loads((reference_dir / 'official_layer_decay.json').read_text())


@pytest.fixture(scope='session')
def official_keys(reference_dir) -> dict:
    """{row: {state-dict key: shape}} of official checkpoints."""
    return json.loads((reference_dir / 'official_checkpoint_keys.json').read_text())


@pytest.fixture(scope='session')
def official_configs(reference_dir) -> dict:
    """{row: resolved config} in the keys of mmdet 2 and mmseg 0."""
    return json.loads((reference_dir / 'official_resolved_configs.json').read_text())['configs']
