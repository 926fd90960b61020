"""Files of ``torch.save``, read as tensors and plain containers only; what is refused is named."""
import pickle
import pickletools
import re
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import _weights_only_unpickler

from ..errors import UserError, first_line

MAX_EXPANSION = 10  # torch.save stores without compression; a zip bomb expands a thousand times
PICKLES_BEFORE_WEIGHTS = 4  # a legacy file: magic number, version, machine, content


def read_torch(file: Path, head: bytes, map_location: Any, mmap: bool = False) -> dict:
    """The dict in a file of ``torch.save``, in the zip or the legacy layout.

    Args:
        head: the file's first bytes.
        map_location: as for torch.load.
        mmap: read a tensor's values when they are used, not before; in the zip layout.

    Raises:
        UserError: the file is no checkpoint, is damaged, or needs more than tensors and plain containers.
    """
    if not head.startswith((b'PK', b'\x80')):
        raise UserError(f'{file} is no checkpoint (it starts with {head[:12]!r}): expected a .pth, .pt or '
                        '.safetensors file; download or copy it again')
    if head.startswith(b'PK'):
        check_archive(file)
    try:
        content = torch.load(file, map_location=map_location, weights_only=True, mmap=mmap and head.startswith(b'PK'))
    except Exception as error:  # on bytes that are no whole checkpoint, torch's readers raise about anything
        problem = find_problem(file, str(error)) if isinstance(error, pickle.UnpicklingError) else None
        raise problem or damaged(file, first_line(error)) from error
    if not isinstance(content, dict):
        raise UserError(f'{file} holds a {type(content).__name__}, expected a dict with weights')
    return content


def damaged(file: Path, reason: str) -> UserError:
    """The error for a file that is cut off or has wrong bytes."""
    return UserError(f'{file} is damaged or cut off ({file.stat().st_size} bytes; {reason}): download or copy it again')


def check_archive(file: Path) -> None:
    """Raise UserError unless a zip file is what torch.save writes."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises struct.error and others on damaged directories
        raise damaged(file, first_line(error)) from error
    names = [entry.filename for entry in entries]
    if any(name.endswith('/constants.pkl') for name in names):
        # torch 2.4 hands these to torch.jit.load, whatever weights_only says
        raise refusal(file, 'the program in a TorchScript archive')
    if not any(name.endswith('/data.pkl') for name in names):
        shown = ', '.join(map(ascii, names[:3])) or 'nothing'
        raise UserError(f'{file} is a zip archive and no checkpoint (it holds {shown}, and no data.pkl): unpack it and '
                        'name the checkpoint in it')
    if sum(entry.file_size for entry in entries) > MAX_EXPANSION * file.stat().st_size:
        raise damaged(file, f'its content would be over {MAX_EXPANSION} times as large; torch.save never compresses')


def refusal(file: Path, offender: str) -> UserError:
    """The error for a file that needs a type or function beyond tensors and plain containers."""
    return UserError(f'{file} needs {offender}, and only tensors and plain containers are loaded, since anything else '
                     'could run code: save its state dict alone, or get it as safetensors')


def find_problem(file: Path, message: str) -> UserError | None:
    """Why torch refused a pickle: a type or function in it, or its protocol; None if it is simply broken.

    Args:
        message: what torch said. It names the type for protocols 2 and 3 only.
    """
    found = re.search(r"GLOBAL ([\w.]+)|got <class '([\w.]+)'|function (<[^>]+>)", message)
    if found:
        return refusal(file, found[1] or found[2] or found[3])
    allowed, protocol = allowed_names(), 0
    try:
        for kind, value in scan_file(file):
            if kind == 'name' and value not in allowed:
                return refusal(file, value)
            if kind == 'protocol':
                protocol = max(protocol, value)
    except Exception:  # pickletools and zipfile raise about anything on damaged bytes
        return None
    if protocol == 2:
        return None
    return UserError(f'{file} was saved with pickle protocol {protocol or "0 or 1"}, and torch reads only protocol 2 '
                     'without running code: save it again with the default pickle_protocol of torch.save')


def allowed_names() -> set[str]:
    """Names of the types and functions that torch loads with ``weights_only=True``."""
    # torch has no public list of its own names
    return {*_weights_only_unpickler._get_allowed_globals(), *_weights_only_unpickler._get_user_allowed_globals()}


def scan_file(file: Path) -> Iterator[tuple[str, Any]]:
    """`scan_pickle` of a checkpoint's pickles, whose tensors' values are not read."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            name = next(name for name in archive.namelist() if name.endswith('/data.pkl'))
            with archive.open(name) as stream:
                yield from scan_pickle(stream)
    else:
        with open(file, 'rb') as stream:
            for _ in range(PICKLES_BEFORE_WEIGHTS):
                yield from scan_pickle(stream)


def scan_pickle(stream: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """``('protocol', number)`` and ``('name', 'module.name')`` of everything that a pickle looks up."""
    memo, recent, last = {}, deque(maxlen=2), None  # a name of protocol 4 consists of the two most recent strings
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name == 'PROTO':
            yield 'protocol', argument
        elif operation.name in ('GLOBAL', 'INST'):
            yield 'name', argument.replace(' ', '.', 1)
        elif operation.name == 'STACK_GLOBAL' and len(recent) == 2:
            yield 'name', '.'.join(recent)
            last = None
        elif operation.name == 'MEMOIZE':
            memo[len(memo)] = last
        elif operation.name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
            memo[argument] = last
        else:
            last = memo.get(argument) if operation.name in ('GET', 'BINGET', 'LONG_BINGET') else argument
            if isinstance(last, str):
                recent.append(last)
