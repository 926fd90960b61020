"""Test a row's published checkpoint by the published protocol and print ours beside the published figure.

Exit status 1 where a figure differs by more than the tolerance.
"""
import argparse
import sys
from pathlib import Path

from ..engine.reproduce import FOLDERS, format_result, reproduce
from ..errors import UserError
from ..mm.device import use_device
from ..recipes.metafile import find_recipe, load_recipes


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rows', nargs='*', metavar='ROW', help='short names of published rows, as in docs/recipes.md')
    parser.add_argument('--all', action='store_true', help='all thirteen rows, ADE20K by both protocols')
    parser.add_argument('--multi-scale', action='store_true', help='ADE20K: multi-scale + flip instead of single scale')
    parser.add_argument('--data-root', help='folder of the data set; with --all, the one with coco/ and ade/')
    parser.add_argument('--checkpoint', help='these weights instead of the published file')
    parser.add_argument('--work-dir', help='for logs and reproduce.json (default: work_dirs/reproduce/ROW)')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    args = parser.parse_args(argv)
    if bool(args.rows) == args.all:
        raise UserError('name the rows to reproduce, or --all, and not both')
    if args.checkpoint and len(args.rows) != 1:
        raise UserError('--checkpoint belongs to one row: name exactly one')
    use_device(args.device)

    if args.all:
        recipes = [recipe for recipe in load_recipes() if recipe.published]
        jobs = [(recipe, False) for recipe in recipes] + [(recipe, True) for recipe in recipes if recipe.task == 'seg']
    else:
        jobs = [(find_recipe(row), args.multi_scale) for row in args.rows]
    lines, differs = [], False
    for recipe, multi_scale in jobs:
        root = str(Path(args.data_root, FOLDERS[recipe.task])) if args.all and args.data_root else args.data_root
        for result in reproduce(recipe, multi_scale, root, args.checkpoint, args.work_dir, args.cfg_options):
            lines.append(format_result(result))
            differs |= result.verdict == 'differs'
    print('\n'.join(lines))
    if differs:
        sys.exit(1)
