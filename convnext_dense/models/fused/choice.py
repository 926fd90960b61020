"""The block's fused operators, and where they are used: on GPUs, where they were measured to be faster.

`choose` runs the plain form of an operation or the fused one. The plain form is what is computed everywhere else; both
give the same numbers to rounding. Which one is faster depends on the GPU, the types and the sizes, so each is measured
once for each of these, forward and backward, and the answer is kept in a file in the cache folder.
"""
import json
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from ...utils.files import atomic_write, cache_folder
from ..kernels import exporting

MODES = ('measured', 'always', 'never')
TYPES = (torch.float32, torch.float16, torch.bfloat16)
_mode = 'measured'
_decided: dict[tuple, bool] = {}  # of this process


def set_fused_kernels(mode: str) -> None:
    """Say when fused operators run on a GPU: 'measured' (where they are faster, the default), 'always' or 'never'.

    Raises:
        ValueError: another mode.
    """
    global _mode
    if mode not in MODES:
        raise ValueError(f'fused kernels: expected one of {", ".join(MODES)}, got {mode!r}')
    _mode = mode


@contextmanager
def fused_kernels(mode: str) -> Iterator[None]:
    """`set_fused_kernels` for a ``with`` block."""
    before = _mode
    set_fused_kernels(mode)
    try:
        yield
    finally:
        set_fused_kernels(before)


def result_dtype(x: Tensor) -> torch.dtype:
    """What a layer makes of ``x`` that feeds a linear layer: autocast's type, else that of ``x``."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def choose(kind: str, plain: Callable, fused: Callable, maps: Sequence[Tensor],
           parameters: Sequence[Tensor]) -> Tensor:
    """The result of ``plain(*maps)`` or ``fused(*maps)``, which are the same operation.

    Args:
        kind: name of the operation.
        plain, fused: both forms.
        maps: their arguments, (N, C, H, W) or (N, H, W, C), all on one device.
        parameters: what else has gradients; the last has one value a channel.
    """
    return (fused if wanted(kind, plain, fused, maps, parameters) else plain)(*maps)


def wanted(kind: str, plain: Callable, fused: Callable, maps: Sequence[Tensor], parameters: Sequence[Tensor]) -> bool:
    """Whether to run the fused form; measures where that is not known yet."""
    x = maps[0]
    if not x.is_cuda or _mode == 'never' or exporting() or any(tensor.dtype not in TYPES for tensor in maps):
        return False
    if _mode == 'always' or torch.compiler.is_compiling():  # the compiler fuses the plain form itself
        return _mode == 'always'
    if not has_triton():
        return False
    key = (kind, x.device.index, x.numel().bit_length(), torch.is_grad_enabled(), result_dtype(x),
           parameters[-1].numel(), *(tensor.dtype for tensor in maps))
    if key not in _decided:
        if torch.cuda.is_current_stream_capturing():
            return False
        _decided[key] = look_up_or_measure(kind, plain, fused, maps, parameters)
    return _decided[key]


def look_up_or_measure(kind: str, plain: Callable, fused: Callable, maps: Sequence[Tensor],
                       parameters: Sequence[Tensor]) -> bool:
    """Whether the fused form is the faster one, by the kept answers or by measuring."""
    device = torch.cuda.get_device_name(maps[0].device)
    known, key = answers(device), describe(kind, maps, parameters[-1].numel())
    if key not in known:
        known[key] = is_faster(fused, plain, maps, parameters)
        keep(device, known)
    return known[key]


@cache
def has_triton() -> bool:
    """Whether Triton is installed; torch brings it on Linux."""
    return find_spec('triton') is not None


def describe(kind: str, maps: Sequence[Tensor], channels: int) -> str:
    """What an answer depends on: kind, channels, types, powers of two of the size, gradients."""
    types = ', '.join(str(tensor.dtype) for tensor in maps)
    return (f'{kind}, {channels} channels, {types}, 2^{maps[0].numel().bit_length()} values, '
            f'to {result_dtype(maps[0])}, gradients {torch.is_grad_enabled()}')


@cache
def answers(device: str) -> dict[str, bool]:
    """What earlier runs with the same versions found on that GPU."""
    try:
        found = json.loads(answers_file(device).read_text())
    except (OSError, ValueError):
        return {}
    return {key: value is True for key, value in found.items()} if isinstance(found, dict) else {}


def answers_file(device: str) -> Path:
    """Where answers for a GPU, of this torch, are kept."""
    name = re.sub(r'\W', '-', f'{device}-{torch.__version__}-{platform.machine()}')
    return cache_folder() / 'fused_kernels' / f'{name}.json'


def keep(device: str, known: dict[str, bool]) -> None:
    """Write the answers for a GPU; where that is impossible they last as long as the process."""
    file = answers_file(device)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as part:
            part.write_text(json.dumps(known, indent=1, sort_keys=True))
    except OSError:
        return


def is_faster(fused: Callable, plain: Callable, maps: Sequence[Tensor], parameters: Sequence[Tensor],
              rounds: int = 10) -> bool:
    """Whether ``fused`` takes less time than ``plain``, forward and, with gradients, backward, host included."""
    gradients = torch.is_grad_enabled()
    maps = [tensor.detach().requires_grad_(gradients) for tensor in maps]
    wrt = [*maps, *(tensor for tensor in parameters if tensor.requires_grad)]

    def run(function: Callable) -> None:
        out = function(*maps)
        if gradients:
            torch.autograd.grad(out, wrt, torch.ones_like(out))

    seconds = []
    for function in (plain, fused):
        for _ in range(3):
            run(function)
        torch.cuda.synchronize()
        start = perf_counter()
        for _ in range(rounds):
            run(function)
        torch.cuda.synchronize()
        seconds.append(perf_counter() - start)
    return seconds[1] < seconds[0]
