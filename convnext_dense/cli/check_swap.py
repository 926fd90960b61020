"""Put our backbone into stock configs of mmdet and mmseg, one a folder: build, loss, backward and prediction."""
import argparse
from collections import Counter
from pathlib import Path

from ..errors import UserError
from ..mm import environment


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog='A ConvNeXt-atto takes the place of the stock '
                                     'backbone; two small images with made-up targets; nothing is downloaded.')
    parser.add_argument('--package', choices=('mmdet', 'mmseg'), nargs='+', default=('mmdet', 'mmseg'))
    parser.add_argument('--folder', nargs='+', metavar='NAME', help='only these folders of configs')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--amp', choices=('fp16', 'bf16'), help='with autocast to this dtype')
    parser.add_argument('--jobs', type=int, default=2, help='processes side by side, default: 2')
    parser.add_argument('--limit', type=float, default=600, metavar='SECONDS', help='for one folder, default: 600')
    parser.add_argument('--out', metavar='FILE', help='write the table as Markdown; of a table that is there, '
                        'only the folders of this run change')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.jobs < 1:
        raise UserError(f'--jobs {args.jobs}: at least one process is needed')
    environment.require('mmcv', 'mmdet', 'mmseg')
    import torch

    from ..benchmark.swap import folders, sweep, write_table
    amp = {None: None, 'fp16': torch.float16, 'bf16': torch.bfloat16}[args.amp]
    names = [(package, folder) for package in args.package for folder in folders(package)
             if not args.folder or folder in args.folder]
    unknown = set(args.folder or ()) - {folder for _, folder in names}
    if unknown:
        raise UserError(f'--folder {" ".join(sorted(unknown))}: {" and ".join(args.package)} have no such folder of '
                        'configs')
    line = '{package:6} {folder:20} {outcome:14} {config}'
    print(line.format(package='', folder='folder', outcome='outcome', config='config'))
    rows = []
    for row in sweep(names, args.jobs, args.limit, args.device, amp):
        rows.append(row)
        if args.out:
            write_table([row], Path(args.out))
        print(line.format(**vars(row)) + (f'\n{"":28}{row.reason}' if row.reason else ''), flush=True)
    counts = Counter(row.outcome for row in rows)
    print(f'{len(rows)} folders: ' + ', '.join(f'{n} {outcome}' for outcome, n in counts.most_common()))
