"""The fused operators: compiled for GPUs without one, the bytes that they move, and on a GPU their time."""
import argparse
import re
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from math import prod
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import UserError
from ..models.fused import ops
from ..models.fused.choice import has_triton
from .timing import interleaved_medians

ARCHITECTURES = (80, 90, 100)  # compute capability times ten: A100, H100 and H200, B200
CHANNELS = (40, 96, 768, 2816)  # atto's first stage, tiny's first and last, huge's last
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
TRITON_TYPES = {torch.float32: 'fp32', torch.bfloat16: 'bf16', torch.float16: 'fp16', torch.float64: 'fp64'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--arch', type=int, nargs='+', default=list(ARCHITECTURES), metavar='NUMBER',
                        help='compute capabilities to compile for (default: 80 90 100)')
    parser.add_argument('--channels', type=int, nargs='+', default=list(CHANNELS),
                        help='of the block (default: %(default)s); GRN has four times as many')
    parser.add_argument('--dtypes', nargs='+', choices=tuple(DTYPES), default=['float32', 'bfloat16'])
    parser.add_argument('--shape', type=int, nargs=3, default=(2, 56, 56), metavar=('N', 'H', 'W'),
                        help='of the maps (default: 2 56 56)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu',
                        help='cuda also times both forms there, and compares their results')


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """Compile and measure; returns rows and their table.

    Raises:
        UserError: Triton is not installed, or there is no GPU.
    """
    if not has_triton():
        raise UserError('benchmark kernels: Triton is not installed here (torch brings it on Linux)')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('benchmark kernels: --device cuda needs a GPU, and torch sees none; use --device cpu')
    rows = []
    for dtype in args.dtypes:
        for channels in args.channels:
            for name, case in cases(tuple(args.shape), channels, DTYPES[dtype]).items():
                row = dict(operator=name, dtype=dtype, channels=channels * (4 if name.startswith('GRN') else 1))
                row |= bytes_moved(case)
                row['kernels'] = [dict(arch=arch, **found) for arch in args.arch
                                  for found in compile_launches(case, arch)]
                if args.device == 'cuda':
                    row |= measure(case)
                rows.append(row)
    copied = copy_rate() if args.device == 'cuda' else None
    result = dict(shape=list(args.shape), rows=rows, copy_gbytes_per_s=copied)
    return result, format_kernels(result)


class Case:
    """An operator with its plain form, and inputs for it.

    Attributes:
        fused, raw, plain: the operator, the Python function that launches its kernels, and the plain form.
        inputs: (shape, dtype) of each input of ``fused`` and ``plain``.
        extra: the same of ``raw``, where that is a backward pass; None for a forward one.
    """

    def __init__(self, fused: Callable, raw: Callable, plain: Callable, inputs: list[tuple], extra: list[tuple] | None):
        self.fused, self.raw, self.plain, self.inputs, self.extra = fused, raw, plain, inputs, extra

    def tensors(self, device: str, backward: bool = False) -> list[Tensor]:
        return [torch.empty(shape, dtype=dtype, device=device).normal_() if device != 'meta'
                else torch.empty(shape, dtype=dtype, device=device)
                for shape, dtype in (self.extra if backward else self.inputs)]


def cases(shape: tuple[int, int, int], channels: int, dtype: torch.dtype) -> dict[str, Case]:
    """Every operator, forward and backward, with maps of ``dtype`` and parameters in float32."""
    maps, wide, c, c4 = ((*shape, channels), dtype), ((*shape, 4 * channels), dtype), *(
        ((n,), torch.float32) for n in (channels, 4 * channels))
    weight, small = ((channels, 1, 7, 7), torch.float32), ((shape[0], 4 * channels), torch.float32)

    def norm(*t):
        return ops.depthwise_norm(*t, 1e-6, dtype)

    def norm_plain(x, weight, bias, *rest):
        return ops.depthwise_norm_reference(x, weight.to(dtype), bias.to(dtype), *(p.to(dtype) for p in rest))

    def grn_plain(x, gamma, beta):
        return ops.grn_reference(x, gamma.to(dtype), beta.to(dtype))

    def sum_plain(x, y, gamma):
        return ops.residual_reference(x, y, gamma.to(dtype), None)

    depthwise, grn, added = [maps, weight, c, c, c], [wide, c4, c4], [maps, maps, c]
    return {
        'depthwise + norm': Case(norm, lambda *t: ops.run_depthwise_norm(*t, 1e-6, dtype), norm_plain, depthwise, None),
        'depthwise + norm, backward': Case(
            norm, lambda *t: ops.run_depthwise_norm_backward(*t, 1e-6), norm_plain, depthwise, [maps, *depthwise[:4]]),
        'GRN': Case(lambda *t: ops.grn(*t, 1e-6)[0], lambda *t: ops.run_grn(*t, 1e-6), grn_plain, grn, None),
        'GRN, backward': Case(lambda *t: ops.grn(*t, 1e-6)[0], lambda *t: ops.run_grn_backward(*t, 1e-6), grn_plain,
                              grn, [wide, wide, c4, small, small]),
        'scale + sum': Case(lambda *t: ops.residual(*t, None, dtype), lambda *t: ops.run_residual(*t, None, dtype),
                            sum_plain, added, None),
        'scale + sum, backward': Case(
            lambda *t: ops.residual(*t, None, dtype), lambda *t: ops.run_residual_backward(*t, None), sum_plain, added,
            [maps, maps, c])}


@contextmanager
def recorded():
    """Collects launches of kernels instead of starting them: (name, grid, arguments, options)."""
    launches = []
    with mock.patch.object(ops, 'launch', lambda name, grid, *args, **options:
                           launches.append((name, grid, args, options))):
        yield launches


def launches_of(case: Case) -> list[tuple]:
    with recorded() as launches:
        case.raw(*case.tensors('meta', case.extra is not None))
    return launches


def size(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, Tensor))


def bytes_moved(case: Case) -> dict:
    """Megabytes that the kernels read and write if caches hold what a kernel reads again, beside the least and plain.

    The least is every input read and every result written once. The plain form is counted operator by operator.
    """
    inputs = case.tensors('meta', case.extra is not None)
    with recorded() as launches:
        results = case.raw(*inputs)
    results = [results] if isinstance(results, Tensor) else list(results)
    moved = sum(size({id(arg): arg for arg in args}.values()) for _, _, args, _ in launches)
    leaves = [tensor.requires_grad_() for tensor in case.tensors('meta')]
    with Bytes() as forward:
        out = case.plain(*leaves)
    if case.extra is None:
        return dict(moved_mb=moved / 1e6, least_mb=size([*inputs, *results[:1]]) / 1e6, plain_mb=forward.total / 1e6)
    with Bytes() as backward:
        torch.autograd.grad(out, leaves, torch.empty_like(out))
    return dict(moved_mb=moved / 1e6, least_mb=size([*inputs, *results]) / 1e6, plain_mb=backward.total / 1e6)


class Bytes(TorchDispatchMode):
    """Sums the bytes of arguments and results of every operator that is not a view."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.total += size(args) + size(result if isinstance(result, tuple) else [result])
        return result


def compile_launches(case: Case, arch: int) -> list[dict]:
    """Compile each kernel of a case for a GPU; registers, spilled bytes and shared memory as ptxas reports them."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ..models.fused import triton_kernels
    found = []
    for name, grid, args, options in launches_of(case):
        kernel = getattr(triton_kernels, name)
        warps = options.pop('num_warps')
        signature, attributes = {}, {}
        for index, (parameter, value) in enumerate(zip(kernel.arg_names, args, strict=False)):
            if isinstance(value, int) and value == 1:  # as at run time, where Triton makes a constant of 1
                options[parameter] = value
                continue
            signature[parameter] = triton_type(value)
            if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
                attributes[index,] = [['tt.divisibility', 16]]
        signature = {parameter: signature.get(parameter, 'constexpr') for parameter in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=options, attrs=attributes)
        compiled = triton.compile(source, target=GPUTarget('cuda', arch, 32),
                                  options=dict(num_warps=warps, enable_fp_fusion=True))
        found.append(dict(kernel=name, warps=warps, programs=prod(grid), shared=compiled.metadata.shared,
                          **resources(compiled.asm['ptx'], arch)))
    return found


def triton_type(value) -> str:
    if isinstance(value, Tensor):
        return '*' + TRITON_TYPES[value.dtype]
    return 'fp32' if isinstance(value, float) else 'i32'


def resources(ptx: str, arch: int) -> dict:
    """Registers a thread and bytes that it spills, by Triton's own ptxas."""
    from triton.backends.nvidia.compiler import get_ptxas
    target = re.search(r'\.target (\w+)', ptx)[1]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'kernel.ptx')
        file.write_text(ptx)
        command = [get_ptxas(arch).path, '-v', f'--gpu-name={target}', str(file), '-o', str(Path(folder, 'cubin'))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(registers=int(re.search(r'Used (\d+) registers', done.stderr)[1]),
                spilled=sum(int(value) for value in re.findall(r'(\d+) bytes spill', done.stderr)))


def measure(case: Case) -> dict:
    """Milliseconds of both forms on the GPU, and the largest relative difference of their results."""
    leaves = [tensor.requires_grad_() for tensor in case.tensors('cuda')]
    fused, plain = case.fused(*leaves), case.plain(*leaves)
    if case.extra is None:
        pairs = [(fused, plain)]
        steps = {name: torch.no_grad()(lambda function=function: function(*leaves))
                 for name, function in (('fused', case.fused), ('plain', case.plain))}
    else:
        grad = torch.randn_like(fused)
        steps = {name: lambda out=out: torch.autograd.grad(out, leaves, grad, retain_graph=True)
                 for name, out in (('fused', fused), ('plain', plain))}
        pairs = list(zip(steps['fused'](), steps['plain'](), strict=True))
    error = max(((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in pairs)
    times = interleaved_medians(steps, rounds=20)
    return dict(fused_ms=1e3 * times['fused'], plain_ms=1e3 * times['plain'], difference=error)


def copy_rate() -> float:
    """Gigabytes a second that a copy on the GPU reads and writes."""
    source = torch.empty(2 ** 28, dtype=torch.uint8, device='cuda')
    target = torch.empty_like(source)
    return 2 * source.numel() / 1e9 / interleaved_medians(dict(copy=lambda: target.copy_(source)), rounds=9)['copy']


def format_kernels(result: dict) -> str:
    """Two or three Markdown tables: bytes, time, and what the compiler made."""
    lines = ['maps of {}x{}x{}; megabytes a call'.format(*result['shape']), '',
             '| operator | type | channels | moved | least | plain |', '| --- | --- | ---: | ---: | ---: | ---: |']
    for row in result['rows']:
        lines.append(f"| {row['operator']} | {row['dtype']} | {row['channels']} | {row['moved_mb']:.1f} | "
                     f"{row['least_mb']:.1f} | {row['plain_mb']:.1f} |")
    copied = result['copy_gbytes_per_s']
    if copied:
        lines += ['', f'a copy moves {copied:.0f} GB/s; share: of that rate, by the bytes that are moved', '',
                  '| operator | type | channels | fused ms | plain ms | plain / fused | share | difference |',
                  '| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |']
        for row in result['rows']:
            lines.append(f"| {row['operator']} | {row['dtype']} | {row['channels']} | {row['fused_ms']:.3f} | "
                         f"{row['plain_ms']:.3f} | {row['plain_ms'] / row['fused_ms']:.2f} | "
                         f"{row['moved_mb'] / row['fused_ms'] / copied:.0%} | {row['difference']:.1e} |")
    lines += ['', '| kernel | type | channels | GPU | warps | registers | spilled bytes | shared bytes |',
              '| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |']
    for row in result['rows']:
        lines += [f"| {k['kernel']} | {row['dtype']} | {row['channels']} | sm_{k['arch']} | {k['warps']} | "
                  f"{k['registers']} | {k['spilled']} | {k['shared']} |" for k in row['kernels']]
    spilling = sum(kernel['spilled'] > 0 for row in result['rows'] for kernel in row['kernels'])
    lines += ['', f"{sum(len(row['kernels']) for row in result['rows'])} kernels compiled, {spilling} spill registers"]
    return '\n'.join(lines)
