"""Files and folders that appear complete or not at all, and image files put into them."""
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

PLACEMENTS = ('copy', 'hardlink', 'symlink')


@contextmanager
def atomic_write(path: str | os.PathLike, sync: bool = False) -> Iterator[Path]:
    """Give the name of a file to write, which becomes ``path`` when all went well and vanishes otherwise.

    Readers of ``path`` see the old content or the new one, never a part. Missing folders are created. The temporary
    name is ``.<pid>.part<suffix>`` behind the name, since several writers choose their format by the suffix.

    Args:
        path: the file to write.
        sync: wait until the content is on the disk, so that it also survives a power failure.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}.part{path.suffix}')
    try:
        part.touch()  # where nothing may be written, this says so; some writers raise a RuntimeError, others nothing
        yield part
        if sync:
            with part.open('rb') as written:
                os.fsync(written.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # on a full disk, half a file takes the space that others need


def check_writable(path: str | os.PathLike) -> None:
    """Refuse a file or folder that cannot be written later, before the work whose result it is to hold.

    Raises:
        UserError: names it, and why.
    """
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f'{path} cannot be written ({folder}: {error.strerror}): expected a place where you may '
                        'create files; name another one') from error


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """As `atomic_write`, for a folder: give one to write into, which replaces ``out`` when all went well."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f'.{out.name}.{os.getpid()}.part')
    replaced = out.with_name(f'{part.name}.old')
    try:
        part.mkdir()
        yield part
        if out.exists():
            out.rename(replaced)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def cache_folder() -> Path:
    """Folder for what can be made again at any time: ``CONVNEXT_DENSE_CACHE``, or ``convnext_dense`` in the user's."""
    user = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(os.environ.get('CONVNEXT_DENSE_CACHE') or Path(user) / 'convnext_dense')


def check_output(out: Path, sources: list[Path], overwrite: bool, marker: str) -> None:
    """Refuse to write into a source, or over anything but an earlier result.

    Args:
        out: the folder to write.
        sources: folders that must stay as they are.
        overwrite: whether an earlier result, told by the file `marker` in it, may be replaced.

    Raises:
        UserError: names the folder and why.
    """
    for source in sources:
        inner, outer = out.resolve(), source.resolve()
        if inner == outer or outer in inner.parents or inner in outer.parents:
            raise UserError(f'{out} and the source {source} lie in one another: choose another folder to write to')
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not (out / marker).is_file():
        raise UserError(f'{out} exists and is no converted data set (no {marker} in it): choose another folder')
    if not overwrite:
        raise UserError(f'{out} already holds a data set: choose another folder, or replace it with --overwrite')


def place(source: Path, target: Path, how: str) -> None:
    """Make `target` a 'copy' of, a 'hardlink' or an (absolute) 'symlink' to `source`.

    Raises:
        UserError: the file system cannot link.
    """
    try:
        if how == 'symlink':
            target.symlink_to(source.resolve())
        elif how == 'hardlink':
            os.link(source.resolve(), target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        if how == 'copy':
            raise
        raise UserError(f'{source} cannot be linked from {target.parent} ({error.strerror}): use --link copy') from None


def is_inside(path: Path, folders: tuple[Path, ...]) -> bool:
    """Whether a path, `..` resolved and links not followed, lies in one of the folders."""
    whole = Path(os.path.abspath(path))
    return any(whole.is_relative_to(os.path.abspath(folder)) for folder in folders)
