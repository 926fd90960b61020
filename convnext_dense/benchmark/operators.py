"""Our operators beside mmcv's own, compiled: values and gradients on random inputs."""
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch

from ..errors import UserError
from ..mm import operators
from .operator_cases import FAMILIES

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def compare(other: ModuleType, device: str = 'cpu', families: tuple[Callable, ...] = FAMILIES,
            ours: ModuleType | None = None) -> list[dict]:
    """One row per operator and option: how ours (or others in their place) and those of ``other`` differ.

    ``other`` gets contiguous maps, ours get them contiguous and channels-last. Operators that ``other`` lacks, or
    has no kernel of for the device, are left out.

    Returns:
        rows of operator, option, cases (two layouts each), differ (cases of another shape or other indices),
        largest (absolute difference of a value) and value (the largest one of ``other``).
    """
    ours, rows = ours or operators.StandIn(), {}
    for family in families:
        for option, run in family(torch.Generator().manual_seed(0), device):
            try:
                expected = run(other, torch.contiguous_format)
            except (AttributeError, RuntimeError) as error:
                lacking = 'has no attribute', 'implementation for device', 'not compiled'
                if any(part in str(error) for part in lacking):
                    break
                raise
            for layout in LAYOUTS:
                for name, results in run(ours, layout).items():
                    row = rows.setdefault((name, option), dict(operator=name, option=option, cases=0, differ=0,
                                                               largest=0., value=0.))
                    row['cases'] += 1
                    _add(row, results, expected[name])
    return list(rows.values())


def compare_devices(device: str, families: tuple[Callable, ...] = FAMILIES) -> list[dict]:
    """As `compare`: our operators on ``device`` beside themselves on the CPU, contiguous and channels-last maps."""
    ours, rows = operators.StandIn(), {}
    for family in families:
        pairs = zip(*(family(torch.Generator().manual_seed(0), where) for where in ('cpu', device)), strict=True)
        for (option, on_cpu), (_, there) in pairs:
            for layout in LAYOUTS:
                expected = on_cpu(ours, layout)
                for name, results in there(ours, layout).items():
                    row = rows.setdefault((name, option), dict(operator=name, option=option, cases=0, differ=0,
                                                               largest=0., value=0.))
                    row['cases'] += 1
                    _add(row, [tensor.cpu() for tensor in results], expected[name])
    return list(rows.values())


def compare_layouts(compiled: ModuleType, device: str = 'cpu') -> list[dict]:
    """One row per compiled operator: what channels-last maps change, called as it is and through ``WithCare``.

    Returns:
        rows of operator, wrong and careful: largest absolute difference from the results of contiguous maps, infinite
        where indices differ; None where the operators raise an error.
    """
    found = {}
    for key, module in (('careful', operators.WithCare(compiled.__spec__)), ('wrong', compiled)):
        for family in FAMILIES:
            try:
                rows = compare(compiled, device, (family,), ours=module)
            except RuntimeError:  # deformable convolution: "input must be contiguous"
                continue
            for row in rows:
                entry = found.setdefault(row['operator'], dict(operator=row['operator'], wrong=None, careful=None))
                entry[key] = max(entry[key] or 0., float('inf') if row['differ'] else row['largest'])
    return list(found.values())


def _add(row: dict, ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    """Enter one case into a row."""
    pairs = list(zip(ours, theirs, strict=True))
    if any(a.shape != b.shape or (not a.is_floating_point() and not a.equal(b)) for a, b in pairs):
        row['differ'] += 1
        return
    for a, b in pairs:
        different = (a - b).abs()[(a != b) & ~(a.isnan() & b.isnan())]  # both NaN: 0 / 0 in both
        row['largest'] = max([row['largest'], *different.double().tolist()])
        if b.is_floating_point() and b.isfinite().any():
            row['value'] = max(row['value'], b[b.isfinite()].abs().max().item())


def build_gpu_kernels(source: str) -> ModuleType:
    """mmcv's kernels for GPUs compiled as plain C++: of operators that it has no code for CPUs of.

    Args:
        source: the unpacked sources of mmcv (``pip download --no-binary :all: --no-deps mmcv==2.1.0``).
    Raises:
        UserError: ``source`` has no such kernels.
    """
    from torch.utils.cpp_extension import load
    common = Path(source, 'mmcv/ops/csrc/common')
    if not (common / 'cuda/roi_pool_cuda_kernel.cuh').is_file():
        raise UserError(f'--mmcv-source {source}: there is no {common / "cuda/roi_pool_cuda_kernel.cuh"}; name the '
                        'folder that mmcv-2.1.0.tar.gz unpacks to')
    with tempfile.TemporaryDirectory() as folder:
        for header in ('cuda.h', 'pytorch_cuda_helper.hpp'):  # what they would bring is in mmcv_kernels.cpp
            Path(folder, header).write_text('')
        return load('mmcv_kernels', [str(Path(__file__).with_name('mmcv_kernels.cpp'))], build_directory=folder,
                    extra_include_paths=[folder, str(common / 'cuda'), str(common)])


def load_compiled() -> ModuleType:
    """The installed mmcv's compiled operators as they are, without :class:`operators.WithCare`.

    Raises:
        UserError: they do not load.
    """
    try:
        return operators.load_compiled()
    except ImportError as error:
        raise UserError(f"mmcv's compiled operators do not load ({error}): they were built for another torch; build "
                        'them again (docs/operators.md) or install mmcv-lite in their place') from error
