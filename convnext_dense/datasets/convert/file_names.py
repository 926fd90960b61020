"""File names in annotations, also those that a labelling tool wrote on Windows."""
import os
import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

WINDOWS = re.compile(r'[A-Za-z]:[\\/]|.*\\')


def find_name(folder: Path, name: str) -> str:
    """The name by which a file is found in a folder; as it is, if it is not found.

    A path with a drive or backslashes is the longest of its ends (``me/images/a.jpg``, ``images/a.jpg``, ``a.jpg``)
    that is there.
    """
    for candidate in _candidates(name):
        if os.path.isfile(folder / candidate):  # False also for a name that no file can have
            return candidate
    return name


def _candidates(name: str) -> Iterator[str]:
    yield name
    if WINDOWS.match(name):
        parts = [part for part in PureWindowsPath(name).parts if part != PureWindowsPath(name).anchor]
        for start in range(len(parts)):
            if '..' not in parts[start:]:
                yield '/'.join(parts[start:])


def last_part(name: str) -> str:
    """The file's own name, of a path as Linux or Windows writes it."""
    return PureWindowsPath(name).name if WINDOWS.match(name) else name.rpartition('/')[2]
