"""Reading checkpoint files without running anything that is in them.

Pickles go through ``torch.load(weights_only=True)``, named explicitly, so that no default of torch or mmengine
matters; what mmengine itself writes into the checkpoints of a run is allow-listed once, in mm/patches.py.
"""
import json
import os
import stat
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, first_line
from . import downloads, zoo
from .pickles import damaged, read_torch

SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors', '.json')
META_KEY = 'convnext_dense'  # metadata entry of a safetensors file published by us, as JSON
# keys under which files keep their weights, in order of preference: EMA weights are what the trainer of such a file
# evaluates (mmengine has swapped its EMA weights into state_dict already)
WRAPPERS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
MAX_NAME = 1000  # characters of a parameter's name
MAX_INDEX = 1 << 26  # bytes of an index of sharded weights
MAX_REPEATED = 1 << 30  # bytes that an expanded tensor may have beyond those in the file


def read_checkpoint(path: str | os.PathLike, map_location: Any = 'cpu', mmap: bool = False) -> dict:
    """Everything that a checkpoint holds, read safely.

    Args:
        path: a ``.pth``/``.pt`` or ``.safetensors`` file, a ``*.index.json`` of sharded files, a URL, a name in
            the zoo (`zoo.names`), or ``hf-hub:owner/name[@revision]``.
        map_location: as for torch.load.
        mmap: read a tensor's values when they are used, not before; of files in torch's zip format.

    Returns:
        The dict in the file; for safetensors ``dict(state_dict=..., meta=...)``.

    Raises:
        UserError: there is no such file or name, it cannot be downloaded, it is damaged, it is no checkpoint, or it
            needs more than tensors and plain containers.
    """
    return read_file(locate(path), map_location, mmap)


def locate(path: str | os.PathLike) -> Path:
    """The local file for whatever `read_checkpoint` accepts, downloaded first where needed; same errors."""
    text = os.fspath(path)
    if not text:
        raise UserError('the name of the checkpoint is empty: give a file, a URL, hf-hub:owner/name or a zoo name')
    if text.startswith(('http://', 'https://')):
        return downloads.fetch(text)
    if text.startswith('hf-hub:'):
        return downloads.fetch_from_hub(text.removeprefix('hf-hub:'))
    try:
        file = Path(text).expanduser()
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except (OSError, ValueError, RuntimeError) as error:  # no permission, too long, a null byte, ~ of nobody
        raise UserError(f'{text[:200]!r} cannot be opened ({first_line(error)}): give a checkpoint file') from error
    if mode is None:
        if file.suffix in SUFFIXES or os.sep in text:
            raise UserError(f'{text} does not exist: give a checkpoint file, a URL, hf-hub:owner/name, or a zoo name '
                            f'such as {zoo.nearest(file.stem)[0]}')
        return downloads.fetch(zoo.find(text).url)
    if stat.S_ISDIR(mode):
        inside = sorted(f.name for f in file.iterdir() if f.name.endswith(SUFFIXES) and f.name != 'config.json')
        hint = f'name the file in it: {", ".join(inside[:4])}' if inside else 'it holds no checkpoint'
        raise UserError(f'{text} is a directory, expected a checkpoint file; {hint}')
    return file


def read_file(file: Path, map_location: Any = 'cpu', mmap: bool = False) -> dict:
    """As `read_checkpoint`, of a local file; its first bytes tell the kind, not its name."""
    head = first_bytes(file)
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
    return read_torch(file, head, map_location, mmap)


def first_bytes(file: Path) -> bytes:
    """The first 512 bytes of a regular file; UserError if it is another kind of file or cannot be read."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a FIFO waits for a writer
            raise UserError(f'{file} is no regular file (a FIFO, socket or device): copy its content into a file first')
        with open(file, 'rb') as stream:
            return stream.read(512)
    except OSError as error:
        raise UserError(f'{file} cannot be read ({error.strerror}): check that it is a file and its permissions') \
            from error


def find_state_dict(checkpoint: Mapping, name: str) -> dict[str, Tensor]:
    """The parameter name -> tensor mapping in a checkpoint as `read_checkpoint` returns it.

    Raises:
        UserError: there is none in it, or a tensor or a name in it cannot be a weight's.
    """
    content, visited = checkpoint, set()
    while isinstance(content, Mapping) and id(content) not in visited:  # a pickle can hold a dict that holds itself
        visited.add(id(content))
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor) and isinstance(key, str)} \
        if isinstance(content, Mapping) else {}
    if not tensors:
        keys = [key[:40] if isinstance(key, str) else type(key).__name__ for key in list(content)[:5]]
        raise UserError(f'{name} holds no weights: expected parameter names with tensors, at the top or under '
                        f'{", ".join(WRAPPERS)}; found a dict of {", ".join(keys) or "nothing"}')
    for key, tensor in tensors.items():
        if not key.isprintable() or len(key) > MAX_NAME:
            raise UserError(f'{name} has the parameter name {key[:80]!r}, with control characters or over {MAX_NAME} '
                            'characters: it is no checkpoint of a network')
        if problem := unusable(tensor):
            raise UserError(f'{name}: {key} is {problem}, expected a dense tensor with values: save the weights of the '
                            'plain float model')
    # detached: a pickle can also set a tensor's hooks, to anything
    return {key: tensor.detach() for key, tensor in tensors.items()}


def unusable(tensor: Tensor) -> str | None:
    """What makes a tensor no plain array of values, or None."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return f'a {type(tensor).__name__}'
    if tensor.is_nested:
        return 'a nested tensor'
    if tensor.layout != torch.strided:
        return f'a sparse tensor ({tensor.layout})'
    if tensor.is_quantized:
        return f'a quantised tensor ({tensor.dtype})'
    if tensor.is_meta:
        return 'a meta tensor, a shape without values'
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes() + MAX_REPEATED:
        return f'an expanded tensor of {tensor.numel()} values, of which the file holds one part'
    return None


def _read_safetensors(file: Path, map_location: Any) -> dict:
    from safetensors import safe_open
    try:
        with safe_open(file, framework='pt') as stream:
            state = {key: stream.get_tensor(key) for key in stream.keys()}
            meta = dict(stream.metadata() or {})
        meta = json.loads(meta[META_KEY]) if META_KEY in meta else meta
    except Exception as error:  # besides SafetensorError, unknown dtypes and malformed metadata
        raise damaged(file, f'safetensors says: {first_line(error)}') from error
    if not isinstance(meta, dict):
        raise UserError(f'{file} has a {META_KEY} entry that is no JSON object: publish the checkpoint again')
    if map_location not in (None, 'cpu'):
        state = {key: tensor.to(map_location) for key, tensor in state.items()}
    return {'state_dict': state, 'meta': meta}


def _read_sharded(index: Path, map_location: Any) -> dict[str, Tensor]:
    wanted = defaultdict(list)
    try:
        if index.stat().st_size > MAX_INDEX:
            raise ValueError(f'{index.stat().st_size} bytes')
        for key, shard in json.loads(index.read_text())['weight_map'].items():
            if not isinstance(shard, str):
                raise TypeError(f'{key} is in {shard!r}')
            wanted[shard].append(key)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'{index} is JSON but no index of sharded weights: expected a weight_map from parameter '
                        'names to files, as save_pretrained writes it') from error
    state = {}
    for shard, keys in sorted(wanted.items()):
        if Path(shard).name != shard or not shard.isprintable():
            raise UserError(f'{index} points to {shard[:80]!r}, outside its own directory: shards must lie beside it')
        file = index.parent / shard
        if not file.is_file():
            raise UserError(f'{file} is missing, and {index.name} says that {len(keys)} parameters are in it')
        if first_bytes(file).lstrip().startswith(b'{'):
            raise UserError(f'{index} points to {shard}, which is an index too, expected a file with weights')
        content = find_state_dict(read_file(file, map_location), str(file))
        absent = [key for key in keys if key not in content]
        if absent:
            raise UserError(f'{file} lacks {len(absent)} parameters that {index.name} places in it, as '
                            f'{absent[0][:80]!r}')
        state.update((key, content[key]) for key in keys)
    return state
