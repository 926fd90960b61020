"""The thirteen published rows and the config that reproduces each; shared by tests of configs and layer decay."""
import json
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
ROWS = json.loads((ROOT / 'tests/data/reference/published_recipes.json').read_text())


def config_path(row: dict) -> Path:
    """The one config whose name starts as the row's does and that ends in its data set."""
    stem, _, data = row['name'].partition('_ade20k')
    found = sorted((ROOT / 'configs' / row['task']).glob(f'{stem}_*_{"ade20k" + data if data else "coco"}.py'))
    assert len(found) == 1, (row['name'], found)
    return found[0]


def load_row(row: dict) -> Config:
    return Config.fromfile(config_path(row))
