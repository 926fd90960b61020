"""Report every problem of a data set before training on it (docs/datasets.md explains each finding)."""
import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import UserError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Exit status: 0 no errors (--strict: 3 for warnings), 4 errors; 2 a wrong command line')
    parser.add_argument('data', help='a config (train and val as it reads them), or a converted folder, a COCO '
                                     'json, or a folder in any format of docs/datasets.md')
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
    with ExitStack() as opened:
        findings = check(args, opened)
    sys.exit(findings.exit_status(args.strict))


def check(args: argparse.Namespace, opened: ExitStack):
    """Check and report; `opened` keeps what is needed for that and removes it later."""
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
        targets = targets_of_path(as_links(path, args, opened), args.images)
    findings = check_dataset(targets, args.workers, cfg)
    if args.json:
        findings.write_json(args.json)
    print('\n'.join(findings.lines()))
    if args.fix is not None:
        print('\n'.join(repair(targets, findings, args.fix)))
    return findings


def as_links(path: Path, args: argparse.Namespace, opened: ExitStack) -> Path:
    """The folder itself, or, of one in a format that configs cannot read, a converted one with links to its images.

    Raises:
        UserError: a converted one is to be repaired, or the converter would leave something out.
    """
    from ..datasets.checks.targets import is_known
    from ..datasets.convert import FORMATS
    from ..datasets.direct import open_dataset
    if not path.is_dir() or is_known(path) or not any(entry.detect(path) for entry in FORMATS.values()):
        return path
    if args.fix is not None:
        raise UserError(f'--fix {args.fix}: {path} is to be converted first, with convert_dataset')
    root, _, notes = open_dataset(path, Path(opened.enter_context(TemporaryDirectory())) / 'data')
    print('\n'.join(notes))
    return root
