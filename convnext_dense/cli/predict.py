"""Predict images and videos: pictures, label maps and COCO json.

Name a config and its trained weights, the folder of a run, a model-zoo entry (docs/recipes.md) or an exported model
(docs/deploy.md):

  python tools/predict.py CONFIG.py CHECKPOINT INPUT... --out DIR
  python tools/predict.py projects/people/run INPUT... --out DIR
  python tools/predict.py ENTRY INPUT... --out DIR
  python tools/predict.py MODEL.onnx INPUT... --out DIR

An INPUT is an image, a video, a folder or a glob in quotes. Files that cannot be predicted are reported and skipped;
the exit status is then 1.
"""
import argparse
import os
import sys

from ..errors import UserError
from ..mm import environment

HIDEABLE = ('boxes', 'masks', 'labels', 'scores')  # as in visualization.draw, which takes seconds to import
COLOUR_BY = ('class', 'instance')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model_and_inputs', nargs='+', metavar='ARG',
                        help='CONFIG CHECKPOINT INPUT..., RUN INPUT..., ENTRY INPUT... or MODEL INPUT...')
    parser.add_argument('--out', default='predictions', metavar='DIR', help='folder for results (default: %(default)s)')
    parser.add_argument('--score-thr', type=float, default=0.3,
                        help='detections below this score are neither drawn nor written (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=1, help='images that go through the network together')
    parser.add_argument('--tile', type=int, metavar='PIXELS', help='cut larger images into square tiles of this side '
                        '(docs/large_images.md)')
    parser.add_argument('--overlap', type=float, default=0.2, help='of neighbouring tiles, as a part of their side, 0 '
                        'to 0.9 (default: %(default)s)')
    parser.add_argument('--hide', nargs='+', choices=HIDEABLE, default=[], metavar='PART',
                        help=f'leave out of the pictures of detections: {", ".join(HIDEABLE)}')
    parser.add_argument('--colour-by', choices=COLOUR_BY, default='class',
                        help='what the colours of detections tell apart (default: %(default)s)')
    parser.add_argument('--no-pictures', action='store_true', help='write no pictures and no videos')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto')
    parser.add_argument('--precision', choices=('fp32', 'bf16', 'fp16'), default='fp32',
                        help='bf16 or fp16: mixed precision; on a CPU bf16 alone (default: %(default)s)')
    parser.add_argument('--compile', action='store_true',
                        help='compile backbone, neck and decode head: minutes at first, for many images of few sizes')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    args = parser.parse_intermixed_args(argv)
    models = 2 if args.model_and_inputs[0].endswith('.py') else 1
    args.model, args.inputs = args.model_and_inputs[:models], args.model_and_inputs[models:]
    if not args.inputs:
        raise UserError(f'nothing to predict after {" ".join(args.model)}: expected CONFIG CHECKPOINT INPUT..., or the '
                        'folder of a run or the name of a model-zoo entry, and INPUT...')
    if args.batch_size < 1 or not 0 <= args.score_thr <= 1:
        raise UserError(f'--batch-size {args.batch_size} and --score-thr {args.score_thr:g}: expected at least 1, and '
                        'a score from 0 to 1')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from ..inference.files import predict_files
    from ..inference.inputs import find_inputs
    from ..inference.outputs import Output
    from ..inference.tiling import Tiling
    from ..utils.files import check_writable
    if args.tile is not None:
        Tiling(args.tile, args.overlap)
    check_writable(os.path.join(args.out, 'predictions.json'))
    inputs = find_inputs(args.inputs, exclude=args.out)  # before the model, whose loading takes longer
    predictor = load_predictor(args)
    output = Output(args.out, predictor.classes, predictor.palette, not args.no_pictures,
                    dict(hide=args.hide, colour_by=args.colour_by))
    try:
        with output:
            skipped = predict_files(predictor, inputs, output, args.batch_size)
    finally:
        print(f'{len(output.images)} images or frames predicted, results in {args.out}')
    for source, reason in skipped:
        print(f'skipped {source.path}: {reason}', file=sys.stderr)
    if skipped:
        raise_or_exit(skipped, inputs)


def load_predictor(args: argparse.Namespace):
    """The trained model, or the exported one, which needs no torch."""
    from ..runtime.backends import is_exported
    if is_exported(args.model[0]):
        if args.cfg_options or args.compile or args.precision != 'fp32':
            raise UserError(f'{args.model[0]} is an exported model and runs as it was exported: leave out '
                            '--cfg-options, --compile and --precision')
        from ..runtime import Predictor
        return Predictor(args.model[0], args.device, score_thr=args.score_thr, tile=args.tile, overlap=args.overlap)
    environment.require('torch', 'mmengine')
    from ..inference.predictor import Predictor
    from ..mm.device import use_device
    use_device(args.device)
    return Predictor(*args.model, device=args.device, cfg_options=args.cfg_options, score_thr=args.score_thr,
                     precision=args.precision, compile=args.compile, tile=args.tile, overlap=args.overlap)


def raise_or_exit(skipped: list, inputs: list) -> None:
    """Exit status 1, or an error where nothing could be read at all."""
    if len(skipped) == len(inputs):
        raise UserError(f'none of the {len(inputs)} inputs could be read; the first: {skipped[0][1]}')
    print(f'{len(skipped)} of {len(inputs)} files skipped', file=sys.stderr)
    sys.exit(1)
