"""Write one self-contained HTML page about a work dir's results, or about two side by side."""
import argparse
from pathlib import Path

from ..errors import UserError


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='one or two folders of '
                        'tools/train.py or tools/test.py; without predictions.npz the model is evaluated first')
    parser.add_argument('--out', type=Path, metavar='FILE.html', help='default: report.html in the first work dir')
    parser.add_argument('--checkpoint', metavar='FILE', help='evaluate these weights (default: the predictions that '
                        'are there, else the newest best_*.pth, else the newest epoch_N.pth or iter_N.pth)')
    parser.add_argument('--images', type=int, default=4, metavar='N',
                        help='pictures of each kind: best, worst, most surprising (default: %(default)s; 0: none)')
    parser.add_argument('--data-root', help='folder of the data, where the config\'s is not right (any more)')
    parser.add_argument('--trust-pickle', action='store_true',
                        help='also read a predictions.pkl of an earlier version, '
                        'a pickle, which can run any code: only for files you made yourself')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto')
    args = parser.parse_args(argv)
    if args.images < 0:
        raise UserError(f'--images {args.images}: expected a number from 0')
    from ..mm.device import use_device
    from ..report import write_report
    use_device(args.device)
    out = args.out or args.work_dirs[0] / 'report.html'
    if out.suffix not in ('.html', '.htm'):
        raise UserError(f'--out {out}: expected a name that ends in .html')
    page = write_report(args.work_dirs, out, args.checkpoint, args.images, args.data_root,
                        trust_pickle=args.trust_pickle)
    print(f'written: {page}')
