"""Reading configs, and checking them and their data before anything is built."""
from .dataloaders import DATALOADERS, EVALUATORS, datasets_of, set_data_root, value_range_of
from .locations import find_config
from .reading import load_config

__all__ = ['DATALOADERS', 'EVALUATORS', 'datasets_of', 'find_config', 'load_config', 'set_data_root',
           'value_range_of']
