"""Strip a run's checkpoint to its weights, record config, metrics and versions, and put its hash into its name."""
import argparse


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='the file of a run, as work_dirs/NAME/epoch_36.pth')
    parser.add_argument('--out-dir', help='where to write NAME-HASH.pth (default: beside the checkpoint)')
    parser.add_argument('--safetensors', action='store_true', help='write safetensors instead of .pth')
    parser.add_argument('--metrics', metavar='FILE.json', help='metrics.json of tools/test.py (default: what the run '
                                                               'logged when it validated this checkpoint)')
    args = parser.parse_args(argv)
    from ..checkpoints.publishing import publish
    publish(args.checkpoint, args.out_dir, '.safetensors' if args.safetensors else '.pth', args.metrics)
