"""Tar shards with an index for random access: a folder of files as few large ones, on this disk or behind a URL.

A folder of shards has
    00000.tar, 00001.tar, ...   the files, in webdataset's layout
    shards.json                 the shards with their sizes, and the SHA-256 of the two files below
    index.npy                   one `ENTRY` per file, sorted by key
    names.txt                   the names of all files, relative to the folder, sorted, one per line

`datasets.shard_writing` writes it. Nothing in it is unpickled, unpacked to a disk or run; what is read is compared with
the name, size and checksum that it must have.
"""
import hashlib
import io
import json
import os
import tarfile
import zlib
from bisect import bisect_left
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import UserError
from .disk_cache import data_cache
from .files import atomic_write, cache_folder
from .storage import MissingFileError, is_cached, is_url, read_if_there, read_object

MARKER, INDEX, NAMES = 'shards.json', 'index.npy', 'names.txt'
FORMAT = 1
# where a file is: hash of its name, byte of its tar header in the shard, its bytes, bytes of the header, number of the
# shard, CRC-32
ENTRY = np.dtype([('key', '<u8'), ('start', '<u8'), ('length', '<u8'), ('header', '<u4'), ('shard', '<u4'),
                  ('crc', '<u4')])
MAX_HEADER = 1 << 16  # bytes; 512 without extended headers

_opened: dict[str, 'Shards | None'] = {}


def name_key(name: str) -> int:
    """64-bit hash of a file's name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), 'little')


def is_inner_name(name: str) -> bool:
    """Whether a name in a tar leads to a place below the folder it is for, and fits on one line."""
    path = PurePosixPath(name)
    return (name not in ('', '.') and not path.is_absolute() and '..' not in path.parts and '\\' not in name
            and not any(letter in '\0\n\r' or '\ud800' <= letter <= '\udfff' for letter in name))


class Shards:
    """Files of a folder of shards, read by name.

    Args:
        folder: path or URL.
        marker: content of its ``shards.json``.

    Raises:
        UserError: a file of the index is missing or damaged, or does not belong to the others.
    """

    def __init__(self, folder: str, marker: bytes):
        self.folder = folder.rstrip('/')
        try:
            described = json.loads(marker)
            if described['format'] != FORMAT:
                raise UserError(f'{self.folder}/{MARKER} has format {described["format"]!r}, expected {FORMAT}: write '
                                'the shards again with this version')
            self.shards = [(str(shard['name']), int(shard['bytes'])) for shard in described['shards']]
            if any(PurePosixPath(name).name != name or not is_inner_name(name) for name, _ in self.shards):
                raise ValueError('a shard lies in another folder')
            self.hashes = {name: str(described[name]) for name in (INDEX, NAMES)}
            self.index = np.load(self._local(INDEX), mmap_mode='r', allow_pickle=False)
            if self.index.dtype != ENTRY or self.index.shape != (int(described['members']),):
                raise ValueError(f'{INDEX} has another length or type')
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, EOFError, OSError, RecursionError) as error:
            raise UserError(f'{self.folder} is a damaged folder of shards ({type(error).__name__}: {error}): write the '
                            'index again with write_shards --index') from error

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def length(self, name: str) -> int | None:
        """Bytes of a file; None if there is none of this name."""
        entry = self._find(name)
        return None if entry is None else int(entry['length'])

    def names(self, below: str = '') -> list[str]:
        """Names of the files in a folder, relative to it, sorted.

        Raises:
            UserError: the list is missing or damaged.
        """
        file = Path(self._local(NAMES))
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UserError(f'{file} cannot be read ({error.strerror}): write the index again with write_shards '
                            '--index') from error
        self._check_hash(NAMES, content)
        prefix = below.strip('/') + '/' if below.strip('/') else ''
        return [name.removeprefix(prefix) for name in content.decode().split('\n')[:-1] if name.startswith(prefix)]

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            UserError: there is none of this name, or what is in its place has another name, size or checksum.
        """
        entry = self._find(name)
        if entry is None:
            raise MissingFileError(f'{self.folder}: its shards have no file {name}: write them from the complete '
                                   'folder')
        start, length, header, number, crc = (int(entry[key]) for key in ('start', 'length', 'header', 'shard', 'crc'))
        end = start + header + length
        if number >= len(self.shards) or header > MAX_HEADER or end > self.shards[number][1]:
            raise self._damaged(name, 'the index points outside of the shards')
        shard = f'{self.folder}/{self.shards[number][0]}'
        cache = data_cache() if is_cached(shard) else None
        key = f'{shard}|{start}|{length}|{crc}'
        content = cache and cache.get(key)
        if content is None or zlib.crc32(content) != crc:
            block = read_object(shard, start, end) if is_url(shard) else self._read_local(shard, name, start, end)
            content = self._checked(name, block, header, length, crc)
            if cache:
                cache.put(key, content)
        return content

    def _read_local(self, shard: str, name: str, start: int, end: int) -> bytes:
        try:
            with open(shard, 'rb', buffering=0) as file:
                file.seek(start)
                block = file.read(end - start)
        except OSError as error:
            raise UserError(f'{shard} cannot be read ({error.strerror}): it is missing or may not be read; copy it '
                            'again') from error
        if len(block) != end - start:
            raise self._damaged(name, f'{shard} ends early')
        return block

    def _checked(self, name: str, block: bytes, header: int, length: int, crc: int) -> bytes:
        """The content in a file's part of a shard, if that is what the index says."""
        try:
            with tarfile.open(fileobj=io.BytesIO(block), mode='r:') as tar:
                member = tar.next()
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise self._damaged(name, f'no file begins there, {error}') from error
        if member is None or not member.isreg() or member.issparse():
            raise self._damaged(name, 'no regular file is there')
        found = str(PurePosixPath(member.name))
        if found != name or member.size != length or member.offset_data != header:
            raise self._damaged(name, f'{found} with {member.size} bytes is there')
        content = block[header:]
        if zlib.crc32(content) != crc:
            raise self._damaged(name, 'its content has another checksum')
        return content

    def _damaged(self, name: str, what: str) -> UserError:
        return UserError(f'{self.folder}: {name} is not where the index says ({what}): the shards were changed or '
                         'damaged after the index was written; copy them again, or write the index again with '
                         'write_shards --index')

    def _find(self, name: str):
        key, keys = np.uint64(name_key(name)), self.index['key']
        position = bisect_left(keys, key)
        return self.index[position] if position < len(keys) and keys[position] == key else None

    def _local(self, name: str) -> str:
        """A file of the index on this disk; one behind a URL is fetched once per machine, under its SHA-256."""
        source = f'{self.folder}/{name}'
        if not is_url(source):
            return source
        from filelock import FileLock
        target = cache_folder() / 'shards' / f'{hashlib.sha256(self.hashes[name].encode()).hexdigest()[:32]}.{name}'
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f'{target}.lock'):
                if not target.exists():
                    content = read_object(source)
                    self._check_hash(name, content)
                    with atomic_write(target) as part:
                        part.write_bytes(content)
        except OSError as error:
            raise UserError(f'{source} cannot be kept in {target.parent} ({error.strerror or error}): make space '
                            'there, or set CONVNEXT_DENSE_CACHE to a folder on a local disk') from error
        return str(target)

    def _check_hash(self, name: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != self.hashes[name]:
            raise UserError(f'{self.folder}/{name} does not belong to {MARKER} beside it (another SHA-256): it was '
                            'changed or is still being copied; copy all files of the folder again')


def find_shards(path: str, is_folder: bool = False) -> tuple[Shards, str] | None:
    """The shards that a file, or a folder, is in, and its name in them; None if no folder above it has shards."""
    scheme, separator, rest = path.rpartition('://')
    parts = rest.split('/')
    for count in range(len(parts) - (not is_folder), 0, -1):
        folder = scheme + separator + '/'.join(parts[:count])
        if parts[count - 1] and _open(folder) is not None:
            return _open(folder), '/'.join(part for part in parts[count:] if part)
    return None


def _open(folder: str) -> Shards | None:
    file = f'{folder}/{MARKER}'
    if folder not in _opened:
        if is_url(file):
            marker = read_if_there(file)
        elif os.path.isfile(file):
            marker = Path(file).read_bytes()
        else:
            return None  # asked again, since that costs nothing
        _opened[folder] = None if marker is None else Shards(folder, marker)
    return _opened[folder]
