"""Writing tar shards (`utils.shards`) from a data set's folder, and the index of shards."""
import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import UserError, few, first_line
from ..utils.files import atomic_write, written_whole
from ..utils.images import IMAGE_SUFFIXES
from ..utils.progress import progress_bar
from ..utils.shards import ENTRY, FORMAT, INDEX, MARKER, MAX_HEADER, NAMES, is_inner_name, name_key

BLOCK = tarfile.BLOCKSIZE


def write_data_shards(source: Path, out: Path, shard_bytes: int, folders: list[str] | None = None) -> dict[str, int]:
    """Copy a data set's folder with its images in shards; all else is copied as it is.

    The same folder gives the same bytes. ``out`` appears when it is complete.

    Args:
        source: for example a folder of `convert_dataset`, COCO or ADE20K.
        out: a new folder.
        shard_bytes: largest size of a shard, unless one file alone is larger.
        folders: those below ``source`` that become shards (in a config each is a ``data_prefix``, or holds several);
            default: the topmost ones that hold images themselves.

    Returns:
        Number of files by folder.

    Raises:
        UserError: ``out`` exists or lies in ``source``, a folder is missing, or something cannot be read or written.
    """
    if out.exists():
        raise UserError(f'{out} exists already: name a new folder, so that nothing is overwritten')
    if source.resolve() in out.resolve().parents:
        raise UserError(f'{out} lies in {source}, which is read: choose another folder to write to')
    chosen = folders or image_folders(source)
    if not chosen:
        raise UserError(f'{source} holds no images ({few(IMAGE_SUFFIXES)}): expected the folder of a data set')
    for folder in chosen:
        if (folder != '.' and not is_inner_name(folder)) or not (source / folder).is_dir():
            raise UserError(f'{source} has no folder {folder}: name folders below it')
    try:
        with written_whole(out) as part:
            _copy_others(source, part, {PurePosixPath(folder) for folder in chosen})
            counts = {}
            for folder in chosen:
                (part / folder).mkdir(parents=True, exist_ok=True)
                _write_tars(source / folder, part / folder, shard_bytes)
                counts[folder] = index_shards(part / folder)
            return counts
    except OSError as error:
        raise UserError(f'{out} could not be written ({error.strerror or error}; {error.filename or source}): nothing '
                        'is left of it; make space, or repair the file, and start again') from error


def image_folders(source: Path) -> list[str]:
    """The topmost folders below a folder that hold images themselves, sorted."""
    found: list[str] = []
    for parent, folders, files in os.walk(source, followlinks=True):
        folders.sort()
        name = Path(parent).relative_to(source).as_posix()
        if any(_is_image(file) for file in files):
            found.append(name)
            folders.clear()
    return sorted(found)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.')


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder but hidden ones, sorted."""
    names = (Path(parent, file).relative_to(folder).as_posix() for parent, _, files in
             os.walk(folder, followlinks=True) for file in files if not file.startswith('.'))
    return iter(sorted(names))


def _copy_others(source: Path, out: Path, chosen: set[PurePosixPath]) -> None:
    for name in _files(source):
        if not chosen & set(PurePosixPath(name).parents):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, out / name)


def _write_tars(source: Path, out: Path, shard_bytes: int) -> None:
    """Write the shards of one folder: sorted by name, without times and owners."""
    names, tar, size, number = list(_files(source)), None, 0, 0
    try:
        with progress_bar('files written', len(names), 'file') as bar:
            for name in names:
                if not is_inner_name(name):
                    raise UserError(f'{source} has a file with the name {name!r}, which cannot be listed: rename it')
                content = (source / name).read_bytes()
                member = tarfile.TarInfo(name)
                member.size = len(content)
                needed = len(member.tobuf(tarfile.PAX_FORMAT)) + -(-len(content) // BLOCK) * BLOCK
                if tar is None or size + needed > shard_bytes - 2 * BLOCK:
                    if tar is not None:
                        tar.close()
                    tar, size, number = tarfile.open(out / f'{number:05}.tar', 'w', format=tarfile.PAX_FORMAT), 0, \
                        number + 1
                tar.addfile(member, io.BytesIO(content))
                size += needed
                bar.update()
    finally:
        if tar is not None:
            tar.close()


def index_shards(folder: Path) -> int:
    """Write the index of the tar files in a folder, which any tool may have written; returns the number of files.

    Raises:
        UserError: there is no tar, one ends early, changes while it is read, or has a link, a device, a name that leads
            out of the folder, or a name that another file has.
    """
    shards = sorted(folder.glob('*.tar'))
    if not shards:
        raise UserError(f'{folder} has no .tar files: expected uncompressed shards')
    found: dict[str, tuple] = {}
    for number, shard in enumerate(shards):
        before = _state(shard)
        for name, start, length, header, crc in _members(shard):
            if name in found:
                raise UserError(f'{folder}: two files are named {name}, in {shards[found[name][3]].name} and '
                                f'{shard.name}: give each its own name')
            found[name] = start, length, header, number, crc
        if _state(shard) != before:
            raise UserError(f'{shard} changed while it was read: start again when it is complete')
    names = sorted(found)
    index = np.array([(name_key(name), *found[name]) for name in names], ENTRY)
    index.sort(order='key')
    if (index['key'][1:] == index['key'][:-1]).any():
        raise UserError(f'{folder}: two names have the same 64-bit hash: split the folder in two')
    array = io.BytesIO()
    np.save(array, index)
    contents = {INDEX: array.getvalue(), NAMES: ''.join(f'{name}\n' for name in names).encode()}
    described = {'format': FORMAT, 'members': len(names),
                 'shards': [{'name': shard.name, 'bytes': shard.stat().st_size} for shard in shards],
                 **{name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}}
    contents[MARKER] = (json.dumps(described, indent=1) + '\n').encode()  # last: it is what makes a folder of shards
    for name, content in contents.items():
        with atomic_write(folder / name) as part:
            part.write_bytes(content)
    return len(names)


def _members(shard: Path) -> Iterator[tuple[str, int, int, int, int]]:
    """(name, start of its header, bytes, bytes of the header, CRC-32) of each file of a tar."""
    end = 0
    try:
        with tarfile.open(shard, 'r:') as tar:
            for member in tar:
                name = str(PurePosixPath(member.name))
                header = member.offset_data - member.offset
                end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise UserError(f'{shard}: {name!r} is a link, a device or a sparse file: expected regular files '
                                    'only; write the shard again without it')
                if not is_inner_name(member.name) or header > MAX_HEADER:
                    raise UserError(f'{shard}: the name {member.name[:100]!r} leads out of the folder or cannot be '
                                    'listed: expected names such as 000001.jpg; write the shard again without it')
                content = tar.extractfile(member).read()
                if len(content) != member.size:
                    raise tarfile.ReadError('unexpected end of data')
                yield name, member.offset, member.size, header, zlib.crc32(content)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{shard} cannot be read as a tar file ({first_line(error)}): it ends early, is damaged or '
                        'compressed; copy or write it again') from error
    with open(shard, 'rb') as file:
        file.seek(end)
        if file.read(2 * BLOCK) != bytes(2 * BLOCK):
            raise UserError(f'{shard} ends early (no end mark after byte {end}): copy or write it again')


def _state(file: Path) -> tuple[int, int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
