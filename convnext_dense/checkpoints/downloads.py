"""Downloads: with a progress bar, cached, resumed, and never a partial file taken for a whole one."""
import fcntl
import hashlib
import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import torch

from ..errors import UserError
from . import zoo

ATTEMPTS = 3
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 20
HASH_IN_NAME = re.compile(r'-([a-f0-9]{8,64})\.[a-z.]+$')  # torch.hub's convention: the first digits of the sha256
HUB_FILES = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json')


def cache_path(url: str) -> Path:
    """Where the file of a URL belongs: torch.hub's folder, which timm and torchvision share.

    Files of the zoo stand there under their own names. Names from elsewhere (``model.safetensors``) are not
    unique, so their folder is the URL's hash.
    """
    folder, name = Path(torch.hub.get_dir()) / 'checkpoints', Path(urlsplit(url).path).name or 'download'
    return folder / name if zoo.knows(url) else folder / hashlib.sha256(url.encode()).hexdigest()[:10] / name


def fetch(url: str) -> Path:
    """Path of the URL's file in the cache, downloaded first if it is not there.

    Several processes may ask at once: one downloads, the others wait. An interrupted download goes on where it
    stopped, also in a later run.

    Raises:
        UserError: no network, an error of the server, a broken transfer, or a file with another hash than published.
    """
    file = cache_path(url)
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _download(url, file)
        except OSError as error:
            raise UserError(f'cannot download {url} ({_reason(error)}): put the file at {file} by hand, '
                            'or try again with a network') from error
    _check_hash(file)
    return file


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
        except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
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
    part = file.with_name(file.name + '.part')
    while True:
        with open(part, 'ab') as out:
            fcntl.flock(out, fcntl.LOCK_EX)  # held until the file is closed; other processes wait here
            if file.exists():
                _remove_if_same(part, out)
                return
            if not part.exists() or part.stat().st_ino != os.fstat(out.fileno()).st_ino:
                continue  # another process has finished or given up with the file that we opened
            for attempt in range(ATTEMPTS):
                try:
                    _transfer(url, out)
                    break
                except urllib.error.HTTPError:
                    raise  # the server's answer will not change
                except OSError:
                    if attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(attempt)
            out.flush()
            os.fsync(out.fileno())
            os.replace(part, file)
            return


def _remove_if_same(part: Path, out) -> None:
    if part.exists() and part.stat().st_ino == os.fstat(out.fileno()).st_ino:
        part.unlink()


def _transfer(url: str, out) -> None:
    """Append the missing bytes to ``out``; OSError if the connection ends before the announced length."""
    have = os.fstat(out.fileno()).st_size
    request = urllib.request.Request(url, headers={'User-Agent': 'convnext-dense'})
    if have:
        request.add_header('Range', f'bytes={have}-')
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing after what we have, or another file by now: start anew
            out.truncate(0)
            return _transfer(url, out)
        raise
    with response:
        if have and not (response.status == 206
                         and response.headers.get('Content-Range', '').startswith(f'bytes {have}-')):
            out.truncate(0)  # the server sends the whole file again
            have = 0
        length = response.headers.get('Content-Length')
        chunked = response.headers.get('Transfer-Encoding', '') == 'chunked'
        if length is None and not chunked:
            raise OSError('the server does not say how long the file is, so a broken transfer could not be told')
        total = None if length is None else have + int(length)
        progress = Progress(Path(urlsplit(url).path).name, have, total)
        try:
            while block := response.read(CHUNK):
                out.write(block)
                have += len(block)
                progress.show(have)
        except http.client.HTTPException as error:
            raise OSError(f'the connection broke after {have} bytes') from error
        finally:
            out.flush()
            progress.end()
    if total is not None and have != total:
        raise OSError(f'the connection ended after {have} of {total} bytes; the next attempt goes on from there')


def _check_hash(file: Path) -> None:
    published = HASH_IN_NAME.search(file.name)
    if published and not sha256(file).startswith(published[1]):
        file.unlink()
        raise UserError(f'{file} does not have the hash {published[1]} that its name publishes: it was damaged or '
                        'replaced on the way and has been removed; download it again')


def _reason(error: Exception) -> str:
    reason = getattr(error, 'reason', None) or error
    return (str(reason) or type(error).__name__).splitlines()[0][:200]


class Progress:
    """One line on a terminal's stderr; nothing where stderr is no terminal.

    Args:
        name: of the file.
        start: bytes that were there before.
        total: bytes of the whole file, None if unknown.
    """

    def __init__(self, name: str, start: int, total: int | None):
        self.name, self.start, self.total = name, start, total
        self.began = self.shown = time.monotonic()

    def show(self, have: int) -> None:
        """Redraw for ``have`` bytes, at most five times a second."""
        now = time.monotonic()
        if not sys.stderr.isatty() or now - self.shown < 0.2 and have != self.total:
            return
        self.shown = now
        speed = (have - self.start) / max(now - self.began, 1e-6) / 1e6
        done = 1.0 if not self.total else have / self.total
        bar = '' if self.total is None else f'{"#" * int(20 * done):20} {done:4.0%} of '
        sys.stderr.write(f'\r{self.name} {bar}{(self.total or have) / 1e6:.1f} MB, {speed:.1f} MB/s')

    def end(self) -> None:
        """Finish the line."""
        if sys.stderr.isatty():
            sys.stderr.write('\n')
