"""Files of a data set wherever they are: on this disk, in tar shards, behind a URL, or in shards behind a URL.

A path or URL names a file; where a folder above it has a ``shards.json``, its bytes come from the shards there. So a
config is the same in all four cases but for its ``data_root``.
"""
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..errors import UserError
from .disk_cache import data_cache
from .files import cache_folder
from .shards import find_shards
from .storage import downloaded, has_objects, is_cached, is_url, list_objects, read_object

RECENT = 2  # files kept in memory: a sample's image and label map are looked at, then loaded

_recent: OrderedDict[str, bytes] = OrderedDict()


class UrlPath(PurePosixPath):
    """A URL, with the names, parents and joins of a path."""

    def __str__(self) -> str:
        return super().__str__().replace(':/', '://', 1)


def data_path(path: str | os.PathLike) -> Path | UrlPath:
    """A path or URL as an object with parts."""
    text = str(path)
    if text.startswith('file://'):
        return Path(text.removeprefix('file://'))
    return UrlPath(text) if is_url(text) else Path(path)


def is_elsewhere(folder: str | os.PathLike) -> bool:
    """Whether the files of a folder are behind a URL or in shards."""
    return is_url(folder) or find_shards(str(folder).rstrip('/'), is_folder=True) is not None


def join_paths(root: str | os.PathLike | None, path: str | os.PathLike) -> str:
    """A path below a root; the path itself where it is a URL or absolute."""
    root, path = str(root or ''), str(path)
    if is_url(path) or os.path.isabs(path) or not root:
        return path
    return f'{root.rstrip("/")}/{path}' if is_url(root) else os.path.join(root, path)


def read_file(path: str | os.PathLike, fresh: bool = False) -> bytes:
    """The bytes of a file.

    Args:
        path: or URL.
        fresh: as it is now; otherwise an object behind a URL is taken from the cache where that has it.

    Raises:
        FileNotFoundError: it is neither on this disk nor in shards there.
        UserError: it is in shards or behind a URL and cannot be read.
    """
    path = str(path)
    if not is_url(path):
        try:
            return Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if find_shards(path) is None:
                raise
    if fresh and find_shards(path) is None:
        return read_object(path)
    if path not in _recent:
        _recent[path] = _read_elsewhere(path)
        while len(_recent) > RECENT:
            _recent.popitem(last=False)
    return _recent[path]


def _read_elsewhere(path: str) -> bytes:
    found = find_shards(path)
    if found is not None:
        return found[0].read(found[1])
    cache = data_cache() if is_cached(path) else None
    content = cache and cache.get(path)
    if content is None:
        content = read_object(path)
        if cache:
            cache.put(path, content)
    return content


def is_usable_file(path: str | os.PathLike) -> bool:
    """Whether a file is there and not empty; one behind a URL that is in no shards is left to its reader."""
    path = str(path)
    if not is_url(path) and os.path.isfile(path):
        return os.path.getsize(path) > 0
    found = find_shards(path)
    return bool(found[0].length(found[1])) if found is not None else is_url(path)


def is_file(path: str | os.PathLike) -> bool:
    """Whether there is such a file."""
    path = str(path)
    if not is_url(path) and os.path.isfile(path):
        return True
    found = find_shards(path)
    if found is not None and found[1] in found[0]:
        return True
    return is_url(path) and has_objects(path)


def is_folder(path: str | os.PathLike) -> bool:
    """Whether there is such a folder: of files, of shards, or in shards."""
    path = str(path).rstrip('/')
    if not is_url(path) and os.path.isdir(path):
        return True
    found = find_shards(path, is_folder=True)
    if found is not None:
        return not found[1] or bool(found[0].names(found[1]))
    return is_url(path) and has_objects(path)


def list_files(folder: str | os.PathLike) -> list[str]:
    """Paths of all files below a folder, relative to it, sorted; hidden ones are left out."""
    folder = str(folder).rstrip('/')
    found = find_shards(folder, is_folder=True)
    if found is not None:
        names = found[0].names(found[1])
    elif is_url(folder):
        names = list_objects(folder)
    else:
        names = sorted(os.path.relpath(os.path.join(parent, file), folder)
                       for parent, _, files in os.walk(folder, followlinks=True) for file in files)
    return [name for name in names if not name.rpartition('/')[2].startswith('.')]


@contextmanager
def local_file(path: str | os.PathLike) -> Iterator[Path]:
    """A file on this disk: the file itself, or a copy that is removed afterwards.

    Raises:
        UserError: it cannot be read, or not be copied.
    """
    path = str(path)
    found = None if not is_url(path) and os.path.exists(path) else find_shards(path)
    if not is_url(path) and found is None:
        yield Path(path)
        return
    folder = cache_folder() / 'downloads'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if found is None:
            with downloaded(path, folder) as file:
                yield file
            return
    except OSError as error:
        raise UserError(f'{path} cannot be copied to {folder} ({error.strerror or error}): make space there, or set '
                        'CONVNEXT_DENSE_CACHE to a folder on a local disk') from error
    from tempfile import TemporaryDirectory
    with TemporaryDirectory(dir=folder) as temporary:
        file = Path(temporary, Path(path).name)
        file.write_bytes(read_file(path))
        yield file
