"""Report every problem of a data set before training on it (docs/datasets.md explains each finding)."""
import argparse
import os
import sys
from pathlib import Path

from ..errors import UserError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Exit status: 0 no errors (--strict: 3 for warnings), 4 errors; 2 a wrong command line')
    parser.add_argument('data', help='a config (train and val as it reads them), or a converted folder, a COCO '
                                     'json, or a folder with images/ and annotations/')
    parser.add_argument('--images', metavar='DIR', help='images of a COCO json, if they are not beside it')
    parser.add_argument('--data-root', help='folder of the data, for a config')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    parser.add_argument('--json', metavar='FILE',
                        help='write all findings there (of one kind about annotations, the first 10,000)')
    parser.add_argument('--fix', metavar='OUT', type=Path,
                        help='write repaired annotations into this new folder; nothing is changed in place')
    parser.add_argument('--strict', action='store_true', help='exit with 3 where there are warnings')
    parser.add_argument('--workers', type=int, default=min(8, os.cpu_count() or 1), help='processes that read images')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.workers < 0:
        raise UserError(f'--workers {args.workers}: expected 0 (this process only) or more')
    if args.json and not Path(args.json).resolve().parent.is_dir():
        raise UserError(f'--json {args.json}: its folder does not exist')
    if args.fix is not None and args.fix.exists():
        raise UserError(f'--fix {args.fix} exists already: name a new folder, so that nothing is overwritten')
    from ..config import load_config
    from ..datasets.checks.check import check_dataset
    from ..datasets.checks.repair import repair
    from ..datasets.checks.targets import targets_of_config, targets_of_path
    path, cfg = Path(args.data), None
    if path.suffix == '.py' or not path.exists():
        if path.suffix != '.py':
            raise UserError(f'{path} does not exist: expected a config (.py), a folder or a COCO json')
        cfg = load_config(args.data, args.cfg_options, args.data_root)
        targets = targets_of_config(cfg)
    else:
        targets = targets_of_path(path, args.images)
    findings = check_dataset(targets, args.workers, cfg)
    if args.json:
        findings.write_json(args.json)
    print('\n'.join(findings.lines()))
    if args.fix is not None:
        print('\n'.join(repair(targets, findings, args.fix)))
    sys.exit(findings.exit_status(args.strict))
