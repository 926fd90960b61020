"""mmengine's file backends for data on this disk or elsewhere: all that mmengine, mmdet and mmseg load goes through."""
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.fileio.backends import BaseStorageBackend, LocalBackend

from ..utils import data_source
from ..utils.storage import is_url


class _Reading:
    """What loading data needs, by `utils.data_source`."""

    def get(self, filepath) -> bytes:
        return data_source.read_file(filepath)

    def get_text(self, filepath, encoding: str = 'utf-8') -> str:
        """Annotations and lists: as they are now, not as they were when the cache got them."""
        return data_source.read_file(filepath, fresh=True).decode(encoding)

    def exists(self, filepath) -> bool:
        return self.isfile(filepath) or self.isdir(filepath)

    def isfile(self, filepath) -> bool:
        return data_source.is_file(filepath)

    def isdir(self, filepath) -> bool:
        return data_source.is_folder(filepath)

    def join_path(self, filepath, *filepaths) -> str:
        for path in filepaths:
            filepath = data_source.join_paths(filepath, path)
        return filepath

    @contextmanager
    def get_local_path(self, filepath) -> Iterator[str]:
        with data_source.local_file(filepath) as file:
            yield str(file)


class RemoteBackend(_Reading, BaseStorageBackend):
    """Data behind URLs, read only."""

    def list_dir_or_file(self, dir_path, list_dir: bool = True, list_file: bool = True, suffix=None,
                         recursive: bool = False) -> Iterator[str]:
        """As of mmengine's LocalBackend, in sorted order."""
        if list_dir and suffix is not None:
            raise TypeError('`suffix` should be None when `list_dir` is True')
        files = data_source.list_files(dir_path)
        if list_file:
            yield from (name for name in files
                        if (recursive or '/' not in name) and (suffix is None or name.endswith(suffix)))
        if list_dir:
            folders = {name[:end] for name in files for end, letter in enumerate(name) if letter == '/'}
            yield from sorted(name for name in folders if recursive or '/' not in name)


class DiskBackend(_Reading, LocalBackend):
    """mmengine's LocalBackend, which also finds files in shards."""

    def list_dir_or_file(self, dir_path, *args, **kwargs) -> Iterator[str]:
        """As of LocalBackend; what is in shards instead of the shards."""
        if not is_url(dir_path) and data_source.find_shards(os.fspath(dir_path).rstrip('/'), is_folder=True) is None:
            return super().list_dir_or_file(dir_path, *args, **kwargs)
        return RemoteBackend().list_dir_or_file(dir_path, *args, **kwargs)
