"""Print parameters and FLOPs (multiply-accumulates) of a config's model, by component, at the published input."""
import argparse
import json


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config file, or one of the package (det/... or seg/...)')
    parser.add_argument('--shape', nargs=2, type=int, metavar=('WIDTH', 'HEIGHT'),
                        help='input in pixels (default: 1280 800 for detection, 4 crops x 1 crop for segmentation)')
    parser.add_argument('--json', action='store_true', help='one JSON object: params and flops as plain numbers, parts')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    args = parser.parse_args(argv)
    from ..config import load_config
    from ..recipes.model_info import format_table, model_info
    cfg = load_config(args.config, args.cfg_options)
    info = model_info(cfg, tuple(args.shape) if args.shape else None)
    print(json.dumps(info) if args.json else format_table(info))
