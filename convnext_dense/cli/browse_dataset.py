"""Show what the network sees of a config's data: after the whole pipeline, with boxes, masks and labels."""
import argparse

from ..errors import UserError


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config file, or one of the package (det/... or seg/...)')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train')
    parser.add_argument('--number', type=int, default=16, help='images, chosen at random (default: %(default)s)')
    parser.add_argument('--out', default='browse.png', metavar='FILE|DIR',
                        help='a contact sheet (.png, .jpg), a page (.html), or a folder for a sheet and every picture '
                             '(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of choice and augmentation; another one shows others')
    parser.add_argument('--data-root', help='folder of the data, for every loader')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    args = parser.parse_args(argv)
    if args.number < 1:
        raise UserError(f'--number {args.number}: expected at least one image')
    from ..config import load_config
    from ..visualization.browse import browse, write_preview
    cfg = load_config(args.config, args.cfg_options, args.data_root)
    preview = browse(cfg, args.split, args.number, args.seed)
    files = write_preview(preview, args.out)
    print(f'{preview.title}\nwritten: {files[0]}' + (f' and {len(files) - 1} pictures' if len(files) > 1 else ''))
