"""Say which of mmcv's operators are in use; compare convnext_dense's own with compiled ones."""
import argparse
from types import ModuleType

from ..errors import UserError
from ..mm import environment


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu',
                        help='where to compare with compiled ones; cuda also compares ours there with ours on the CPU')
    parser.add_argument('--all', action='store_true', help='list the other operators, too')
    parser.add_argument('--mmcv-source', metavar='FOLDER',
                        help="mmcv's unpacked sources: compare with its kernels for GPUs, too, compiled as plain C++ "
                             '(needs ninja and a C++ compiler, no GPU)')
    args = parser.parse_args(argv)
    import torch

    from ..benchmark.operators import build_gpu_kernels, compare_devices, load_compiled
    from ..mm import operators
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no GPU here; use --device cpu')

    print(' '.join(f'{name} {version}' for name, version in environment.versions().items()
                   if name in ('python', 'torch', 'torchvision', 'numpy', 'mmcv', 'mmcv-lite', 'onedl-mmcv')))
    found = operators.in_use()
    if not found:
        print('mmcv is not installed: no operators')
        return
    for name in operators.OPERATORS:
        print(f'{name:32} {found[name]}')
    others = [name for name in found if name not in operators.OPERATORS]
    print(f'{len(others)} others: {found[others[0]]}{": " + ", ".join(others) if args.all else ""}')
    if args.device == 'cuda':
        print_table(compare_devices('cuda'),
                    'convnext_dense.mm.operators on cuda against themselves on the CPU, float32')
    if operators.compiled():
        print_comparison(load_compiled(), f'the compiled operators, float32 on {args.device}', args.device)
        print('tied scores: compiled nms sorts them in no defined order; ours takes the box that comes first')
        print_layouts(load_compiled(), args.device)
    if args.mmcv_source:
        print_comparison(build_gpu_kernels(args.mmcv_source), "mmcv's kernels for GPUs, compiled for the CPU, float32")


def print_comparison(other: ModuleType, name: str, device: str = 'cpu') -> None:
    """Print `benchmark.operators.compare` as a table."""
    from ..benchmark.operators import compare
    print_table(compare(other, device), f'convnext_dense.mm.operators, contiguous and channels-last, against {name}')


def print_table(rows: list[dict], title: str) -> None:
    """Print rows of `benchmark.operators.compare`."""
    print(f'\n{title}:')
    line = '{operator:32} {option:14} {cases:>5} {differ:>13} {largest:>18} {value:>13}'
    print(line.format(operator='operator', option='option', cases='cases', differ='other indices',
                      largest='largest difference', value='largest value'))
    for row in rows:
        print(line.format(**{**row, 'largest': f'{row["largest"]:.2g}', 'value': f'{row["value"]:.2g}'}))


def print_layouts(compiled: ModuleType, device: str) -> None:
    """Print `benchmark.operators.compare_layouts` as a table."""
    from ..benchmark.operators import compare_layouts
    print('\nthe compiled operators with channels-last maps: largest difference from contiguous ones')
    line = '{operator:32} {wrong:>14} {careful:>30}'
    print(line.format(operator='operator', wrong='as they are', careful='as convnext_dense calls them'))
    for row in compare_layouts(compiled, device):
        found = {key: {None: 'error', float('inf'): 'other indices'}.get(row[key], f'{row[key] or 0:.2g}')
                 for key in ('wrong', 'careful')}
        print(line.format(operator=row['operator'], **found))
