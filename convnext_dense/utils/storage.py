"""Objects behind URLs (``s3://``, ``gs://``, ``https://``, ...), read through fsspec, with retries.

Credentials and endpoints are fsspec's and its packages' own: environment variables such as AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL and FSSPEC_S3_ENDPOINT_URL, or their files in the home folder. None of them belongs into a config.
"""
import errno
import hashlib
import importlib.util
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError, first_line

TRIES = 5
FIRST_WAIT = 1.0  # seconds before the second try; each further wait is twice as long, so 15 s in all
# scheme -> the package that fsspec needs for it, None for fsspec itself
SCHEMES = {'s3': 's3fs', 'gs': 'gcsfs', 'gcs': 'gcsfs', 'az': 'adlfs', 'abfs': 'adlfs', 'http': 'aiohttp',
           'https': 'aiohttp', 'file': None, 'memory': None}
# botocore's own retries draw from python's global random numbers, which those of samples come from
OPTIONS = {'s3': {'config_kwargs': {'retries': {'total_max_attempts': 1}}}}
NOT_RETRIED = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, TypeError,
               ValueError, AttributeError, NotImplementedError)
VERSION_KEYS = ('ETag', 'etag', 'generation', 'Content-MD5', 'LastModified', 'Last-Modified', 'last_modified', 'mtime',
                'created')  # by which the file systems of fsspec tell versions of an object apart

_log = logging.getLogger(__name__)


class MissingFileError(UserError):
    """There is no such object, or no such file in shards."""


def is_url(path: str | os.PathLike) -> bool:
    """Whether a path is a URL and not a local file."""
    return '://' in str(path)


def is_cached(url: str) -> bool:
    """Whether a URL leads to another machine, so that what is read is worth keeping on the disk."""
    return is_url(url) and not url.startswith(('file://', 'memory://'))


def require_scheme(url: str) -> None:
    """Refuse a URL that cannot be read with what is installed.

    Raises:
        UserError: names the package to install, or the schemes that there are.
    """
    scheme = url.partition('://')[0]
    if scheme not in SCHEMES:
        raise UserError(f'{url}: the scheme {scheme}:// is not known, expected a local path or one of '
                        f'{", ".join(f"{name}://" for name in SCHEMES)}')
    package = SCHEMES[scheme]
    if importlib.util.find_spec(package or 'fsspec') is None:
        raise UserError(f'{url}: {scheme}:// needs the package {package or "fsspec"}, which is not installed: '
                        f'pip install {package or "fsspec"}')


def read_object(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of an object, or those from ``start`` to ``end`` (excluded).

    Raises:
        UserError: it does not exist, may not be read, ends before ``end``, or could not be read after `TRIES`.
    """
    try:
        content = _retry(url, lambda files, path: files.cat_file(path, start=start, end=end))
    except (FileNotFoundError, PermissionError) as error:
        raise _explained(error, url) from error
    if end is not None and len(content) != end - start:
        raise UserError(f'{url}: expected {end - start} bytes from byte {start} on, found {len(content)}: it ends '
                        'early, was replaced, or the server does not serve parts of files; upload it again')
    return content


def read_if_there(url: str) -> bytes | None:
    """As `read_object`; None where there is no such object, or none that may be seen."""
    try:
        return _retry(url, lambda files, path: files.cat_file(path))
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        return None


def list_objects(url: str) -> list[str]:
    """Paths of all objects below a folder, relative to it, sorted.

    Raises:
        UserError: as of `read_object`.
    """
    def find(files, path):
        root = path.rstrip('/') + '/'
        return sorted(found.removeprefix(root) for found in files.find(path) if found.startswith(root))
    try:
        return _retry(url, find)
    except (FileNotFoundError, PermissionError) as error:
        raise _explained(error, url) from error


def has_objects(url: str) -> bool:
    """Whether there is an object of this name, or a folder with one.

    Raises:
        UserError: it may not be read, or could not be after `TRIES`.
    """
    try:
        return _retry(url, lambda files, path: files.exists(path))
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise _explained(error, url) from error


def object_version(url: str) -> str | None:
    """What differs between versions of an object, as a hash of its URL, size, ETag and times; None if none is told.

    Raises:
        UserError: as of `read_object`.
    """
    try:
        info = _retry(url, lambda files, path: files.info(path), refresh=True)
    except (FileNotFoundError, PermissionError) as error:
        raise _explained(error, url) from error
    told = {key: str(info[key]) for key in VERSION_KEYS if info.get(key) is not None}
    text = json.dumps([url, info.get('size'), told], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32] if told else None


@contextmanager
def downloaded(url: str, folder: Path | None = None) -> Iterator[Path]:
    """A local copy of an object, which is removed afterwards.

    Raises:
        UserError: as of `read_object`, or the copy cannot be written.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        file = Path(temporary, url.rstrip('/').rpartition('/')[2])
        try:
            _retry(url, lambda files, path: files.get_file(path, str(file)))
        except (FileNotFoundError, PermissionError) as error:
            raise _explained(error, url) from error
        yield file


def _retry(url: str, operation: Callable, refresh: bool = False):
    """``operation(file system, path)``, tried again where that may help.

    FileNotFoundError, PermissionError and IsADirectoryError are the caller's; all else ends in a UserError.
    """
    require_scheme(url)
    from fsspec.core import url_to_fs
    for attempt in range(1, TRIES + 1):
        try:
            files, path = url_to_fs(url, **_options(url))
            if refresh:
                files.invalidate_cache()
            return operation(files, path)
        except Exception as error:  # every file system has its own
            if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
                raise
            if isinstance(error, UserError) or not _may_pass(error):
                raise _explained(error, url) from error
            if attempt == TRIES:
                raise UserError(f'{url} could not be read in {TRIES} tries ({first_line(error)}): check the network '
                                'and the server, then run again; training continues with --resume') from error
            wait = FIRST_WAIT * 2 ** (attempt - 1)
            _log.warning('%s: try %d of %d failed (%s), the next is in %g s', url, attempt, TRIES, first_line(error),
                         wait)
            time.sleep(wait)


def _options(url: str) -> dict:
    from fsspec.config import conf
    scheme = url.partition('://')[0]
    return {**OPTIONS.get(scheme, {}), **conf.get(scheme, {})}


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    status = getattr(error, 'status', None)  # aiohttp's
    if isinstance(error, NOT_RETRIED) or 'Credential' in type(error).__name__:
        return False
    if isinstance(error, OSError) and error.errno in (errno.EINVAL, errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return False
    return not (isinstance(status, int) and 400 <= status < 500 and status not in (408, 429))


def _explained(error: Exception, url: str) -> UserError:
    """The sentence for an error that another try would not help."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f'{url} does not exist: check the bucket and the path, and that it was uploaded')
    if isinstance(error, PermissionError) or getattr(error, 'status', None) in (401, 403):
        return UserError(f'{url} may not be read ({first_line(error)}): check the name of the bucket, and the '
                         'credentials in the environment or home folder of this machine')
    if 'Credential' in type(error).__name__:
        return UserError(f'{url}: no credentials were found ({first_line(error)}): set those of your provider in the '
                         'environment (for s3:// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), not in the config')
    return UserError(f'{url} cannot be read ({type(error).__name__}: {first_line(error)}): check the URL, and that the '
                     'object is complete')
