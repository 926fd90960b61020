"""Say which of mmcv's operators are in use; where they are compiled, compare convnext_dense's own with them."""
import argparse
import importlib

import torch

from ..benchmark.operators import compare
from ..errors import UserError
from ..mm import environment, ops


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu', help='where to compare with compiled ones')
    parser.add_argument('--all', action='store_true', help='list the other operators, too')
    args = parser.parse_args(argv)
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no GPU here; use --device cpu')

    print(' '.join(f'{name} {version}' for name, version in environment.versions().items()
                   if name in ('python', 'torch', 'torchvision', 'numpy', 'mmcv', 'mmcv-lite', 'onedl-mmcv')))
    found = ops.in_use()
    if not found:
        print('mmcv is not installed: no operators')
        return
    for name in ops.OPERATORS:
        print(f'{name:20} {found[name]}')
    others = [name for name in found if name not in ops.OPERATORS]
    print(f'{len(others)} others: {found[others[0]]}{": " + ", ".join(others) if args.all else ""}')
    if ops.compiled():
        print_comparison(args.device)


def print_comparison(device: str) -> None:
    """Print :func:`compare` as a table."""
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise UserError(f"mmcv's compiled operators do not load ({error}): they were built for another torch; build "
                        'them again (docs/operators.md) or install mmcv-lite in their place') from error
    print(f'\nconvnext_dense.mm.ops against the compiled operators, float32 on {device}:')
    line = '{operator:20} {option:10} {scores:8} {cases:>5} {differ:>13} {largest:>18}'
    print(line.format(operator='operator', option='option', scores='scores', cases='cases', differ='other indices',
                      largest='largest difference'))
    for row in compare(device):
        print(line.format(**{**row, 'largest': f'{row["largest"]:.2g}'}))
    print('tied scores: compiled nms sorts them in no defined order; ours takes the box that comes first in the input')
