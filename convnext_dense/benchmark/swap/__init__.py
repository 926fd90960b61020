"""Our backbone in the stock configs of mmdet and mmseg: which work, and why others do not."""
from .parallel import sweep
from .rules import NotSwappable, swap
from .table import read_table, write_table
from .trial import WORKS, Row, attempt, config_root, folders, try_folder

__all__ = ['WORKS', 'NotSwappable', 'Row', 'attempt', 'config_root', 'folders', 'read_table', 'swap', 'sweep',
           'try_folder', 'write_table']
