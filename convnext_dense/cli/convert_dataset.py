"""Convert a data set of another format to the layout that configs read (docs/datasets.md)."""
import argparse
from pathlib import Path

from ..datasets.convert import FORMATS, detect_format
from ..datasets.convert.planning import plan_samples
from ..datasets.convert.source import Options, Skipped
from ..datasets.convert.writing import write_dataset
from ..datasets.layout import COUNTED, INFO_FILE, DatasetInfo
from ..errors import UserError
from ..utils.files import PLACEMENTS, check_output
from .running import tool_line


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog='Formats, class lists and examples: docs/datasets.md')
    parser.add_argument('source', type=Path, help='folder (coco: or a json file) to read; nothing is written there')
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--from', dest='format', choices=list(FORMATS), help='format (default: detected)')
    parser.add_argument('--classes', help='names separated by commas, or a file of names, ids or colours')
    parser.add_argument('--ignore', nargs='+', default=[], metavar='CLASS',
                        help='class names or ids whose pixels are ignored')
    parser.add_argument('--unknown', choices=['error', 'ignore'], default='error',
                        help='how a pixel with an id or colour of no class is treated')
    parser.add_argument('--images', nargs='+', default=[], metavar='DIR', help='folders of images')
    parser.add_argument('--masks', nargs='+', default=[], metavar='DIR',
                        help='folders of masks or labels, one for each of --images')
    parser.add_argument('--class-map', metavar='JSON',
                        help='instance-masks: instance id to class name, for all images or for each')
    parser.add_argument('--id-divisor', type=int, metavar='N', help='instance-masks: class id = instance id // N')
    parser.add_argument('--split', type=float, metavar='SHARE',
                        help='share of images for training, stratified by class (default: the splits of the source, '
                             'else 0.8)')
    parser.add_argument('--seed', type=int, default=0, help='of the split')
    parser.add_argument('--link', choices=PLACEMENTS, default='copy', help='how images get into the new folder')
    parser.add_argument('--overwrite', action='store_true', help='replace an earlier result')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if not args.source.exists():
        raise UserError(f'{args.source} does not exist: expected the folder of the data set to convert')
    folders = [folder for folder in (args.source, *map(Path, args.images + args.masks)) if folder.is_dir()]
    check_output(args.out, folders, args.overwrite, INFO_FILE)
    name = args.format or detect_format(args.source)
    options = Options(args.classes, tuple(args.ignore), tuple(args.images), tuple(args.masks), args.unknown,
                      args.class_map, args.id_divisor)
    source = FORMATS[name].open_source(args.source, options)
    planned = plan_samples(source, args.split, args.seed)
    info = write_dataset(args.out, source, planned, name, args.link)
    print_summary(args.out, info, source.skipped, source.notes)


def print_summary(out: Path, info: DatasetInfo, skipped: Skipped, notes: list[str]) -> None:
    """Print the number of images, and of objects or pixels per class, in each split; then what was left out."""
    print(f'{out}: {info.task} data set of {len(info.classes)} classes, from {info.source}')
    train, val = info.splits['train'], info.splits['val']
    width = max(map(len, [*info.classes, 'images']))
    print(f'{"":{width}}  {"train":>12}  {"val":>12}\n{"images":{width}}  {train.images:12,}  {val.images:12,}')
    for name in info.classes:
        print(f'{name:{width}}  {train.counts[name]:12,}  {val.counts[name]:12,}  {COUNTED[info.task]}')
    for note in notes:
        print(f'note: {note}')
    for reason, (count, example) in skipped.reasons.items():
        print(f'left out: {count} x {reason} (first: {example})')
    print(f'next: {tool_line("check_dataset", out)}')
