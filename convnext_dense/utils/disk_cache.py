"""A cache of bytes on the local disk, bound in size, shared by all processes of a machine."""
import errno
import hashlib
import logging
import os
import zlib
from contextlib import suppress
from pathlib import Path

from ..errors import UserError
from .files import cache_folder

SIZE_VARIABLE = 'CONVNEXT_DENSE_CACHE_GB'
DEFAULT_GB = 10.0
BLOCK = 4096  # bytes of which disks hand out whole numbers
KEPT = 0.9  # share of the bound that is left after removing entries, so that it is not done for each new one

_log = logging.getLogger(__name__)
_opened: dict[tuple[Path, float], 'DiskCache'] = {}


class DiskCache:
    """Entries in files; when the bound is reached, those that were not read for longest are removed.

    All writing is done under a lock between processes. Before a file is written, its size is added to the number in
    the file ``used``; a process that is killed in between leaves the number too large, never too small, and the files
    are counted again when it reaches the bound. Reading needs no lock: a file appears complete, its last four bytes
    are a checksum, and one that is removed meanwhile is a miss. On a disk that is full or cannot be written, the cache
    says so once and takes nothing more.

    Args:
        folder: of the files.
        limit: bytes on the disk that the entries take at most.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit, self.is_writable = Path(folder), limit, True

    def get(self, key: str) -> bytes | None:
        """An entry, or None."""
        file = self._file(key)
        try:
            stored = file.read_bytes()
            os.utime(file)  # was used now
        except OSError:
            return None
        content, checksum = stored[:-4], stored[-4:]
        if len(stored) < 4 or zlib.crc32(content).to_bytes(4, 'little') != checksum:
            return None  # after a power failure; `put` replaces it
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep an entry, unless it alone is larger than the bound or the disk cannot take it."""
        from filelock import FileLock
        size = _on_disk(len(content) + 4)
        if not self.is_writable or size > KEPT * self.limit:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / 'lock'):
                used = self._used()
                if used + size > self.limit:
                    used = self._shrink(KEPT * self.limit - size)
                (self.folder / 'used').write_text(str(used + size))
                self._write(self._file(key), content)
        except OSError as error:
            self.is_writable = False
            _log.warning('the cache in %s cannot be written (%s): reading goes on without it; make space there, or set '
                         'CONVNEXT_DENSE_CACHE to another folder', self.folder, os.strerror(error.errno or errno.EIO))

    def _file(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / name[2:]

    def _used(self) -> int:
        """Bytes taken, at least."""
        try:
            return int((self.folder / 'used').read_text())
        except (OSError, ValueError):
            return sum(size for _, size, _ in self._entries())

    def _entries(self) -> list[tuple[float, int, str]]:
        """Last use, bytes and path of each file."""
        found = []
        for folder in os.scandir(self.folder):
            if folder.is_dir():
                for entry in os.scandir(folder.path):
                    with suppress(FileNotFoundError):
                        stat = entry.stat()
                        found.append((stat.st_mtime, _on_disk(stat.st_size), entry.path))
        return found

    def _shrink(self, wanted: float) -> int:
        """Remove entries until what is left takes ``wanted`` bytes at most; returns how many it takes."""
        entries = sorted(self._entries(), key=lambda entry: (not entry[2].endswith('.part'), entry))
        used = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            # nobody writes now: a part is what a killed process has left
            if used <= wanted and not path.endswith('.part'):
                break
            os.unlink(path)
            used -= size
        return used

    @staticmethod
    def _write(file: Path, content: bytes) -> None:
        part = file.with_name(f'{file.name}.part')
        file.parent.mkdir(exist_ok=True)
        try:
            with open(part, 'wb') as out:
                out.write(content)
                out.write(zlib.crc32(content).to_bytes(4, 'little'))
            os.replace(part, file)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def data_cache() -> DiskCache | None:
    """The cache of objects that are not on this disk: CONVNEXT_DENSE_CACHE_GB gigabytes (10) in ``objects/`` of
    `cache_folder`; None where that is 0.

    Raises:
        UserError: the variable is not a number, 0 or more.
    """
    text = os.environ.get(SIZE_VARIABLE, '').strip() or str(DEFAULT_GB)
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float('inf'):
        raise UserError(f'{SIZE_VARIABLE}={text}: expected the gigabytes that cached data may take, 0 for no cache')
    key = cache_folder() / 'objects', limit
    if limit and key not in _opened:
        _opened[key] = DiskCache(key[0], int(limit * 1e9))
    return _opened[key] if limit else None


def _on_disk(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
