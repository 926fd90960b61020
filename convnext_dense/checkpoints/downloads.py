"""Downloads with a progress bar: cached, resumable, and never a partial file taken for a whole one."""
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import torch
from filelock import FileLock

from ..errors import UserError, first_line
from ..utils.progress import progress_bar
from . import zoo

ATTEMPTS = 3
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 20
MAX_NAME = 200  # characters of a cached file's name; file systems take 255 bytes, the temporary suffix included
HASH_IN_NAME = re.compile(r'-([a-f0-9]{8,64})\.[a-z.]+$')  # torch.hub's convention: the first digits of the sha256
HUB_FILES = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json')


def cache_path(url: str) -> Path:
    """Path of a URL's file in torch.hub's cache folder, which timm and torchvision share.

    Files of the zoo keep their names. Names from elsewhere (``model.safetensors``) are not unique, so they get a
    folder named by the URL's hash.
    """
    folder, name = Path(torch.hub.get_dir()) / 'checkpoints', Path(urlsplit(url).path).name[-MAX_NAME:]
    if name in ('', '..'):
        name = 'download'
    return folder / name if zoo.knows(url) else folder / hashlib.sha256(url.encode()).hexdigest()[:10] / name


def fetch(url: str) -> Path:
    """Path of the URL's file in the cache, downloaded first if it is not there.

    Several processes may ask at once: one downloads, the others wait. An interrupted download continues where it
    stopped, also in a later run.

    Raises:
        UserError: a malformed URL, a file of the zoo that is given only to who accepted its licence, no network, an
            error of the server, a broken transfer, or a file with another hash than published.
    """
    check_url(url)
    file = cache_path(url)
    if not file.exists():
        check_access(url)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _download(url, file)
        except OSError as error:
            raise UserError(f'cannot download {url} ({_reason(error)}): put the file at {file} by hand, try again with '
                            'a network, or do without (for a project: new_project --start random)') from error
    return file


def check_url(url: str) -> None:
    """Raise UserError unless a URL has a host and consists of characters that a URL can have."""
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname and parts.hostname.encode('idna')) and parts.port != 0
    except ValueError:  # brackets, ports that are no number, empty or overlong labels
        valid = False
    if not valid or not url.isascii() or not url.isprintable() or ' ' in url:
        raise UserError(f'{url[:200]!r} is no valid URL: expected https://host/path, other characters percent-encoded')


def check_access(url: str) -> None:
    """Raise UserError for a file of the zoo behind a licence, unless it is in the cache.

    Raises:
        UserError: names the licence's page, what to download there, and where to put it.
    """
    weight = zoo.by_url(url)
    if weight is None or weight.access is None or cache_path(url).exists():
        return
    file = cache_path(url)
    raise UserError(f'{weight.name} is gated, its licence has to be accepted first: ask for access at {weight.access}, '
                    f'download {file.name} with the link that Meta sends and put it at {file}, or accept it on the '
                    f'Hugging Face hub, run hf auth login and name {weight.hub} instead')


def fetch_from_hub(repository: str) -> Path:
    """Path of the weights of ``owner/name[@revision]`` on the Hugging Face hub, through its own client and cache.

    Raises:
        UserError: the client is not installed, or neither the hub nor its cache has such weights.
    """
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise UserError(f'hf-hub:{repository} needs the hub client: pip install huggingface_hub') from error
    name, _, revision = repository.partition('@')
    if name.count('/') != 1:
        raise UserError(f'hf-hub:{repository} is no repository, expected hf-hub:owner/name or '
                        'hf-hub:owner/name@revision')
    options = dict(revision=revision or None, local_files_only=False)
    for file in HUB_FILES:
        try:
            found = Path(hub.hf_hub_download(name, file, **options))
            if file.endswith('.json'):
                for shard in set(json.loads(found.read_text())['weight_map'].values()):
                    hub.hf_hub_download(name, shard, **options)
            return found
        except hub.errors.LocalEntryNotFoundError:  # not in the cache, and the hub gave no answer: do not ask again
            options['local_files_only'] = True
        except hub.errors.EntryNotFoundError:
            continue
        except (hub.errors.HfHubHTTPError, OSError, ValueError, KeyError, AttributeError) as error:  # malformed index
            raise UserError(f'cannot get hf-hub:{repository} ({_reason(error)}): check the name, log in with '
                            'hf auth login if it is gated, or download it by hand and give the path') from error
    where = 'the hub cannot be reached and its cache has' if options['local_files_only'] else 'the repository has'
    raise UserError(f'cannot get hf-hub:{repository}: {where} none of {", ".join(HUB_FILES)}; download '
                    f'{hub.hf_hub_url(name, HUB_FILES[0])} or its like by hand and give the path')


def sha256(file: Path) -> str:
    """Hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with open(file, 'rb') as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _download(url: str, file: Path) -> None:
    part, lock = (file.with_name(file.name + suffix) for suffix in ('.part', '.lock'))
    with FileLock(lock):
        if not file.exists():  # else another process downloaded it while this one waited
            with open(part, 'ab') as out:
                _transfer_with_retries(url, out)
                out.flush()
                os.fsync(out.fileno())
            _check_hash(part, file.name)
            os.replace(part, file)
        lock.unlink(missing_ok=True)  # processes that still wait for it find the file


def _transfer_with_retries(url: str, out: BinaryIO) -> None:
    for attempt in range(ATTEMPTS):
        try:
            return _transfer(url, out)
        except urllib.error.HTTPError:
            raise  # the server's answer will not change
        except OSError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(attempt)


def _transfer(url: str, out: BinaryIO) -> None:
    """Append the missing bytes to ``out``; OSError if the connection ends before the announced length."""
    have = os.fstat(out.fileno()).st_size
    request = urllib.request.Request(url, headers={'User-Agent': 'convnext-dense'})
    if have:
        request.add_header('Range', f'bytes={have}-')
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing after what we have, or another file by now: start again
            out.truncate(0)
            return _transfer(url, out)
        raise
    except (http.client.HTTPException, ValueError) as error:  # no HTTP, or a redirection to a malformed URL
        raise OSError(f'the answer of the server is malformed: {_reason(error)}') from error
    with response:
        if have and not (response.status == 206
                         and response.headers.get('Content-Range', '').startswith(f'bytes {have}-')):
            out.truncate(0)  # the server sends the whole file again
            have = 0
        total = _total(response, have)
        with progress_bar(Path(urlsplit(url).path).name, total, 'B', unit_scale=True, initial=have) as bar:
            try:
                while block := response.read(CHUNK):
                    out.write(block)
                    have += len(block)
                    bar.update(len(block))
            except (http.client.HTTPException, ValueError) as error:
                raise OSError(f'the connection broke after {have} bytes') from error
            finally:
                out.flush()
    if total is not None and have != total:
        raise OSError(f'the connection ended after {have} of {total} bytes; the next attempt continues from there')


def _total(response: http.client.HTTPResponse, have: int) -> int | None:
    """Bytes of the whole file, ``have`` of which are there; None for a chunked answer, which marks its own end."""
    length = response.headers.get('Content-Length')
    if length is None:
        if response.headers.get('Transfer-Encoding', '').lower() == 'chunked':
            return None
        raise OSError('the server does not send the length of the file, so a broken transfer could not be detected')
    if not re.fullmatch('[0-9]{1,18}', length):
        raise OSError(f'the server sends the malformed Content-Length {length[:40]!r}')
    return have + int(length)


def _check_hash(part: Path, name: str) -> None:
    published = HASH_IN_NAME.search(name)
    if published and not sha256(part).startswith(published[1]):
        part.unlink()
        raise UserError(f'the file downloaded as {name} does not have the hash {published[1]} of its name: it was '
                        'damaged or replaced in transfer and was not kept; download it again')


def _reason(error: Exception) -> str:
    return first_line(getattr(error, 'reason', None) or error, 200)
