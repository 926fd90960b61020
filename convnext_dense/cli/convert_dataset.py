"""Convert a data set of another format to the layout that configs read (docs/datasets.md)."""
import argparse
import sys
from pathlib import Path
from statistics import median

from ..datasets.convert import FORMATS, detect_format
from ..datasets.convert.planning import PlannedSample, plan_samples
from ..datasets.convert.source import Options, Source
from ..datasets.convert.value_range import find_range
from ..datasets.convert.writing import write_dataset
from ..datasets.export import EXPORTS, MARKER, write_export
from ..datasets.layout import COUNTED, INFO_FILE, DatasetInfo
from ..errors import UserError
from ..utils.files import PLACEMENTS, check_output
from .running import tool_line

LOSSES = 3  # exit status: the data set is written, and something was left out or is to be answered


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Formats, class lists and examples: docs/datasets.md. Exit status: 0; 3 if '
                                    'something was left out or a mask may hold several objects; 2 an error')
    parser.add_argument('source', type=Path, help='folder (coco: or a json file) to read; nothing is written there')
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--from', dest='format', choices=list(FORMATS), help='format (default: detected)')
    parser.add_argument('--to', choices=list(EXPORTS), help='write this format instead of the layout that configs read')
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
    parser.add_argument('--components', action='store_true',
                        help='masks: every connected part of a value is an object (binary masks of 0 and 255)')
    parser.add_argument('--boxes', choices=['xywh', 'xyxy'], default='xywh',
                        help='coco: form of the boxes; xyxy for files that have corners')
    parser.add_argument('--value-range', default='percentiles', metavar='HOW',
                        help='what becomes 0 to 255 in images with more than 8 bits a value: percentiles (0.1 and 99.9 '
                             'of all values), full (smallest and largest value), or LOW,HIGH (default: %(default)s)')
    parser.add_argument('--min-score', type=float, default=0.0, metavar='SCORE',
                        help='predictions: leave out detections below it')
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
    check_output(args.out, folders, args.overwrite, MARKER if args.to else INFO_FILE)
    name = args.format or detect_format(args.source)
    options = Options(args.classes, tuple(args.ignore), tuple(args.images), tuple(args.masks), args.unknown,
                      args.class_map, args.id_divisor, args.components, args.boxes, args.min_score)
    source = FORMATS[name].open_source(args.source, options)
    if source.single and not args.to:
        raise UserError(f'{args.source} holds predictions: write them for a labelling tool with --to '
                        f'{"|".join(EXPORTS)}')
    planned = plan_samples(source, args.split, args.seed)
    doubtful = bool(source.questions)
    if source.task == 'det':
        describe_objects([entry.objects for entry in planned], source)
    if args.to:
        write_export(args.out, args.to, source, planned, args.link)
        print(f'{args.out}: {len(planned)} images with {sum(entry.objects for entry in planned)} objects as {args.to}')
        print_notes(source)
    else:
        convert(args, name, source, planned)
    if source.skipped.has_losses or doubtful:
        sys.exit(LOSSES)


def convert(args: argparse.Namespace, name: str, source: Source, planned: list[PlannedSample]) -> None:
    """Write the layout that configs read, and print the summary."""
    value_range = find_range([(entry.sample.image, entry.values) for entry in planned], args.value_range, source.notes)
    info = write_dataset(args.out, source, planned, name, args.link, value_range)
    print_summary(args.out, info, source)
    print(f'next: {tool_line("check_dataset", args.out)}')


def describe_objects(counts: list[int], source: Source) -> None:
    """Add a note on the objects per image; a question, if there is one everywhere."""
    source.notes.insert(0, f'objects per image: {min(counts)} to {max(counts)}, median {median(counts):g}; images '
                           f'without objects: {counts.count(0)}')
    if len(counts) > 1 and set(counts) == {1} and not source.questions:
        source.questions.append('every image has exactly one object: is that so, or are several annotated as one?')


def print_summary(out: Path, info: DatasetInfo, source: Source) -> None:
    """Print the number of images, and of objects or pixels per class, in each split; then what was left out."""
    print(f'{out}: {info.task} data set of {len(info.classes)} classes, from {info.source}')
    train, val = info.splits['train'], info.splits['val']
    width = max(map(len, [*info.classes, 'images']))
    print(f'{"":{width}}  {"train":>12}  {"val":>12}\n{"images":{width}}  {train.images:12,}  {val.images:12,}')
    for name in info.classes:
        print(f'{name:{width}}  {train.counts[name]:12,}  {val.counts[name]:12,}  {COUNTED[info.task]}')
    print_notes(source)


def print_notes(source: Source) -> None:
    """Print notes, questions, and what was left out."""
    for note in source.notes:
        print(f'note: {note}')
    for question in source.questions:
        print(f'question: {question}')
    for reason, (count, example) in source.skipped.reasons.items():
        print(f'left out: {count} x {reason} (first: {example})')
