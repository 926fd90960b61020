"""The thirteen published rows and the config that reproduces each; shared by tests of configs and layer decay."""
import copy
import functools
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


@functools.cache
def _resolve(path: Path) -> Config:
    return Config.fromfile(path)


def load_row(row: dict) -> Config:
    """A row's resolved config, to change at will; read from its files once a session."""
    return copy.deepcopy(_resolve(config_path(row)))
