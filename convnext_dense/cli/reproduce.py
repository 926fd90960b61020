"""Test published checkpoints by the published protocol and print measured and published metrics.

Exit status 1 where a metric differs by more than the tolerance.
"""
import argparse
import sys
from pathlib import Path

from ..errors import UserError


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('entries', nargs='*', metavar='NAME',
                        help='short names of published model-zoo entries, as in docs/recipes.md')
    parser.add_argument('--all', action='store_true', help='all published entries, ADE20K by both protocols')
    parser.add_argument('--multi-scale', action='store_true', help='ADE20K: multi-scale + flip instead of single scale')
    parser.add_argument('--data-root', help='folder of the data set; with --all, the one with coco/ and ade/')
    parser.add_argument('--checkpoint', help='these weights instead of the published file')
    parser.add_argument('--work-dir', help='for logs and results; with several entries a folder each (default: '
                                           'work_dirs/reproduce)')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    args = parser.parse_args(argv)
    if bool(args.entries) == args.all:
        raise UserError('name the entries to reproduce, or --all, and not both')
    if args.checkpoint and len(args.entries) != 1:
        raise UserError('--checkpoint belongs to one entry: name exactly one')
    from ..engine.reproduce import FOLDERS, format_result, reproduce
    from ..mm.device import use_device
    from ..recipes.metafile import find_recipe, load_recipes
    use_device(args.device)

    if args.all:
        recipes = [recipe for recipe in load_recipes() if recipe.published]
        jobs = [(recipe, False) for recipe in recipes] + [(recipe, True) for recipe in recipes if recipe.task == 'seg']
    else:
        jobs = [(find_recipe(name), args.multi_scale) for name in args.entries]
    several = len({recipe.name for recipe, _ in jobs}) > 1
    differs = False
    for recipe, multi_scale in jobs:
        root = str(Path(args.data_root, FOLDERS[recipe.task])) if args.all and args.data_root else args.data_root
        work_dir = str(Path(args.work_dir, recipe.name)) if several and args.work_dir else args.work_dir
        for result in reproduce(recipe, multi_scale, root, args.checkpoint, work_dir, args.cfg_options):
            print(format_result(result), flush=True)  # at once: a later entry may fail for lack of data
            differs |= result.verdict == 'differs'
    if differs:
        sys.exit(1)
