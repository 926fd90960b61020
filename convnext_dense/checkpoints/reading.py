"""Reading checkpoint files without running anything that is in them.

Pickles go through ``torch.load(weights_only=True)``, named explicitly, so that no default of torch or mmengine
matters; what mmengine itself writes into the checkpoints of a run is allow-listed once, in mm/patches.py.
"""
import json
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from . import downloads, zoo

SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors', '.json')
META_KEY = 'convnext_dense'  # metadata entry of a safetensors file published by us, as JSON
# which entry of a file holds the weights, first found first taken; with an EMA twin beside it, the twin is
# what the file's own trainer evaluates (mmengine has swapped the EMA weights into state_dict already)
WRAPPERS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')


def read_checkpoint(path: str | os.PathLike, map_location: Any = 'cpu') -> dict:
    """Everything that a checkpoint holds, read safely.

    Args:
        path: a ``.pth``/``.pt`` or ``.safetensors`` file, a ``*.index.json`` of sharded files, a URL, a name in
            the zoo (`zoo.names`), or ``hf-hub:owner/name[@revision]``.
        map_location: as for torch.load.

    Returns:
        The dict in the file; for safetensors ``dict(state_dict=..., meta=...)``.

    Raises:
        UserError: there is no such file or name, it cannot be downloaded, it is damaged, it is no checkpoint, or it
            needs more than tensors and plain containers.
    """
    return read_file(locate(path), map_location)


def locate(path: str | os.PathLike) -> Path:
    """The local file for whatever `read_checkpoint` accepts, downloaded first where needed; same errors."""
    text = os.fspath(path)
    if not text:
        raise UserError('the name of the checkpoint is empty: give a file, a URL, hf-hub:owner/name or a zoo name')
    if text.startswith(('http://', 'https://')):
        return downloads.fetch(text)
    if text.startswith('hf-hub:'):
        return downloads.fetch_from_hub(text.removeprefix('hf-hub:'))
    file = Path(text).expanduser()
    if file.is_dir():
        inside = sorted(f.name for f in file.iterdir() if f.name.endswith(SUFFIXES) and f.name != 'config.json')
        hint = f'name the file in it: {", ".join(inside[:4])}' if inside else 'it holds no checkpoint'
        raise UserError(f'{text} is a directory, expected a checkpoint file; {hint}')
    if file.exists():
        return file
    if file.suffix in SUFFIXES or os.sep in text:
        raise UserError(f'{text} does not exist: give a checkpoint file, a URL, hf-hub:owner/name, or a zoo name '
                        f'such as {zoo.nearest(file.stem)[0]}')
    return downloads.fetch(zoo.find(text).url)


def read_file(file: Path, map_location: Any = 'cpu') -> dict:
    """As `read_checkpoint`, of a local file; the kind is told from its first bytes, not from its name."""
    try:
        with open(file, 'rb') as stream:
            head = stream.read(512)
    except OSError as error:
        raise UserError(f'{file} cannot be read ({error.strerror}): check that it is a file and its permissions') \
            from error
    if not head:
        raise UserError(f'{file} is empty, expected a checkpoint: download or copy it again')
    text = head.lstrip().lower()
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        raise UserError(f'{file} is a web page (HTML), not a checkpoint: the download got an error or login page '
                        'instead of the file; download it again from the file\'s own URL')
    if text.startswith(b'version https://git-lfs'):
        raise UserError(f'{file} is a git-lfs pointer, not the checkpoint itself: run git lfs pull')
    if text.startswith(b'{'):
        return {'state_dict': _read_sharded(file, map_location), 'meta': {}}
    if head[8:9] == b'{':
        return _read_safetensors(file, map_location)
    return _read_torch(file, head, map_location)


def find_state_dict(checkpoint: Mapping, name: str) -> dict[str, Tensor]:
    """The parameter name -> tensor mapping in a checkpoint as `read_checkpoint` returns it.

    Raises:
        UserError: there is none in it.
    """
    content = checkpoint
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor) and isinstance(key, str)} \
        if isinstance(content, Mapping) else {}
    if not tensors:
        found = f'a dict of {", ".join(map(str, list(content)[:5])) or "nothing"}' \
            if isinstance(content, Mapping) else f'a {type(content).__name__}'
        raise UserError(f'{name} holds no weights: expected parameter names with tensors, at the top or under '
                        f'{", ".join(WRAPPERS)}; found {found}')
    return tensors


def _read_torch(file: Path, head: bytes, map_location: Any) -> dict:
    if not head.startswith((b'PK', b'\x80')):
        raise UserError(f'{file} is no checkpoint (it starts with {head[:12]!r}): expected a .pth, .pt or '
                        '.safetensors file; download or copy it again')
    if zipfile.is_zipfile(file) and any(name.endswith('/constants.pkl') for name in zipfile.ZipFile(file).namelist()):
        # torch 2.4 hands these to torch.jit.load, whatever weights_only says
        raise _refusal(file, 'the program in a TorchScript archive')
    try:
        content = torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # on bytes that are no whole checkpoint, torch's readers raise about anything
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        offender = _offender(file, str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if offender is None:
            raise UserError(f'{file} is damaged or cut off ({file.stat().st_size} bytes; {reason}): '
                            'download or copy it again') from error
        raise _refusal(file, offender) from error
    if not isinstance(content, dict):
        raise UserError(f'{file} holds a {type(content).__name__}, expected a dict with weights')
    return content


def _refusal(file: Path, offender: str) -> UserError:
    return UserError(f'{file} needs {offender}, and only tensors and plain containers are loaded, since anything else '
                     'could run code: save its state dict alone, or get it as safetensors')


def _offender(file: Path, message: str) -> str | None:
    """The type or function that made torch refuse a pickle; None if the pickle is simply broken."""
    found = re.search(r"GLOBAL ([\w.]+)|got <class '([\w.]+)'|function (<[^>]+>)", message)
    if found:
        return found[1] or found[2] or found[3]
    # newer pickle protocols name a type by its two last strings; torch refuses them before it looks
    strings = []
    try:
        for operation, argument, _ in pickletools.genops(file.read_bytes()):
            if operation.name == 'STACK_GLOBAL' and len(strings) > 1:
                return '.'.join(strings[-2:])
            if isinstance(argument, str):
                strings.append(argument)
    except ValueError:
        return None
    return None


def _read_safetensors(file: Path, map_location: Any) -> dict:
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(file, framework='pt') as stream:
            state = {key: stream.get_tensor(key) for key in stream.keys()}
            meta = dict(stream.metadata() or {})
        meta = json.loads(meta[META_KEY]) if META_KEY in meta else meta
    except (SafetensorError, ValueError) as error:
        raise UserError(f'{file} is damaged or cut off ({file.stat().st_size} bytes; safetensors says: {error}): '
                        'download or copy it again') from error
    if map_location not in (None, 'cpu'):
        state = {key: tensor.to(map_location) for key, tensor in state.items()}
    return {'state_dict': state, 'meta': meta}


def _read_sharded(index: Path, map_location: Any) -> dict[str, Tensor]:
    try:
        places = json.loads(index.read_text())['weight_map']
        wanted = {shard: [key for key, place in places.items() if place == shard] for shard in set(places.values())}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{index} is JSON but no index of sharded weights: expected a weight_map from parameter '
                        'names to files, as save_pretrained writes it') from error
    state = {}
    for shard, keys in sorted(wanted.items()):
        if Path(shard).name != shard:
            raise UserError(f'{index} points to {shard!r}, outside its own directory: shards must lie beside it')
        file = index.parent / shard
        if not file.is_file():
            raise UserError(f'{file} is missing, and {index.name} says that {len(keys)} parameters are in it')
        content = find_state_dict(read_file(file, map_location), str(file))
        absent = [key for key in keys if key not in content]
        if absent:
            raise UserError(f'{file} lacks {len(absent)} parameters that {index.name} places in it, as {absent[0]}')
        state.update((key, content[key]) for key in keys)
    return state
