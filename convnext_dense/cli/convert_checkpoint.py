"""Convert ConvNeXt weights from any known format into the official, timm's or transformers'."""
import argparse

FORMATS = ('official', 'timm', 'transformers')  # as in checkpoints.converting, which needs torch


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog='The format of SRC is recognised.')
    parser.add_argument('src', help='a file, a URL, a name of the zoo, or hf-hub:owner/name')
    parser.add_argument('dst', help='NAME.pth, NAME.pt or NAME.safetensors; with --to transformers also a folder, '
                                    'which then works with from_pretrained')
    parser.add_argument('--to', choices=FORMATS, default='official')
    args = parser.parse_args(argv)
    from ..checkpoints.converting import convert_file
    convert_file(args.src, args.dst, args.to)
