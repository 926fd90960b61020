"""Generate a data set of a few large shapes or of many tiny ones: python tools/make_shapes.py --out data/shapes."""
import argparse

from ..datasets.shapes import KINDS, ShapesParams, generate_shapes


def parse_args(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--out', default='data/shapes', help='folder to create; gets coco/ and ade/')
    parser.add_argument('--kind', choices=list(KINDS), default=ShapesParams.kind,
                        help='shapes: 2 to 5 an image; tiny: crowded cells of 6 to 16 pixels, 40 to 90 in 256 x 256')
    parser.add_argument('--seed', type=int, default=ShapesParams.seed, help='the same seed gives the same bytes')
    parser.add_argument('--train', type=int, default=ShapesParams.train, help='number of training images')
    parser.add_argument('--val', type=int, default=ShapesParams.val, help='number of validation images')
    parser.add_argument('--size', type=int, default=ShapesParams.size, help='image side in pixels')
    parser.add_argument('--overwrite', action='store_true', help='replace a shapes data set with other parameters')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    params = ShapesParams(args.seed, args.train, args.val, args.size, args.kind)
    written = generate_shapes(args.out, params, args.overwrite)
    print(f'{args.out}: {args.train} + {args.val} images ' + ('written' if written else 'are already there'))
