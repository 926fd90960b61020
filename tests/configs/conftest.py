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
