"""Export a trained model to ONNX, OpenVINO or torch.export, and prove that it predicts the same.

  python tools/export.py CONFIG CHECKPOINT --to onnx --out model.onnx --images photos/
  python tools/predict.py model.onnx photos/

The file is written only when it predicts what the trained model predicts on the images (docs/deploy.md).
"""
import argparse

FORMATS = ('onnx', 'torch', 'openvino')
PRECISIONS = ('float32', 'float16', 'int8')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a config file, or one of the package (det/... or seg/...)')
    parser.add_argument('checkpoint', help='trained weights: a file, a URL or a name of the zoo')
    parser.add_argument('--to', choices=FORMATS, default='onnx', help='format (default: %(default)s)')
    parser.add_argument('--out', required=True, metavar='FILE', help='file to write: .onnx, .pt2 (torch) or .xml with '
                        '.bin beside it (openvino)')
    parser.add_argument('--images', nargs='+', default=[], metavar='IMAGE', help='images, folders or globs to compare '
                        "the file with the trained model on (default: the first four of the config's test set)")
    parser.add_argument('--size', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'),
                        help='images of one size: others are resized to fit and padded (default: any size, as the '
                        'test pipeline resizes)')
    parser.add_argument('--batch', type=int, help='batches of one size (default: any)')
    parser.add_argument('--precision', choices=PRECISIONS, default='float32', help='default: %(default)s')
    parser.add_argument('--calibrate', nargs='+', default=[], metavar='IMAGE', help='with --precision int8: images, '
                        'folders or globs by which the ranges of values are chosen')
    parser.add_argument('--max-loss', type=float, default=1.0, metavar='POINTS', help="with --precision int8: AP or "
                        "mIoU that may be lost on the config's test set (default: %(default)s)")
    parser.add_argument('--data-root', help='folder of the test set')
    parser.add_argument('--opset', type=int, default=18, help='of ONNX (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from ..mm import environment
    from ..mm.device import use_device
    environment.require('mmengine')
    use_device('cpu')
    from ..deploy import Options, export
    options = Options(args.to, args.images, tuple(args.size) if args.size else None, args.batch, args.precision,
                      args.opset, args.calibrate, args.max_loss)
    seen = export(args.config, args.checkpoint, args.out, options, args.cfg_options, args.data_root)
    print(f'compared with the trained model on {seen}')
    for loss in seen.losses:
        print(f'int8 on the test set: {loss}')
    print(f'written: {args.out}')
