"""Write a data set's images into tar shards, for disks and object storage that many small files slow down."""
import argparse
from pathlib import Path

from ..errors import UserError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Configs read the result with --data-root OUT (docs/scaling.md)')
    parser.add_argument('source', type=Path, help='folder of the data set; nothing is written there')
    parser.add_argument('out', type=Path, nargs='?', help='new folder')
    parser.add_argument('--folders', nargs='+', metavar='FOLDER',
                        help='folders below SOURCE that become shards (default: the topmost that hold images; '
                             'everything else is copied)')
    parser.add_argument('--size', type=float, default=256, metavar='MB',
                        help='largest size of a shard (default: %(default)s)')
    parser.add_argument('--index', action='store_true',
                        help='SOURCE holds .tar shards of any tool: only write their index into it')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if not args.source.is_dir():
        raise UserError(f'{args.source} does not exist: expected the folder of a data set')
    if args.index == (args.out is not None):
        raise UserError('write_shards takes SOURCE and OUT, or --index and SOURCE')
    if not 0 < args.size < float('inf'):
        raise UserError(f'--size {args.size}: expected megabytes, more than 0')
    from ..datasets.shard_writing import index_shards, write_data_shards
    if args.index:
        try:
            print(f'{args.source}: {index_shards(args.source)} files indexed')
        except OSError as error:
            raise UserError(f'{args.source}: the index cannot be written ({error.strerror or error})') from error
        return
    counts = write_data_shards(args.source, args.out, int(args.size * 1e6), args.folders)
    for folder, count in counts.items():
        print(f'{args.out / folder}: {count} files in {len(list((args.out / folder).glob("*.tar")))} shards')
