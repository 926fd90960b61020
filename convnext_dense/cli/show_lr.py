"""Print the learning rate and weight decay that a config's layer decay gives, one line per parameter group."""
import argparse

from ..errors import UserError


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config file, or one of the package (det/... or seg/...)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    args = parser.parse_args(argv)
    from ..config import load_config
    from ..optim import format_groups, parameter_settings
    from ..recipes.model_info import build_on_meta
    cfg = load_config(args.config, args.cfg_options)
    if cfg.optim_wrapper.get('constructor') != 'LayerDecayOptimWrapperConstructor':
        raise UserError(f'{args.config} has no layer decay to show: its optim_wrapper.constructor is '
                        f"{cfg.optim_wrapper.get('constructor')}, not LayerDecayOptimWrapperConstructor")
    model, optimizer = build_on_meta(cfg), cfg.optim_wrapper.optimizer
    settings = parameter_settings(model, cfg.optim_wrapper.paramwise_cfg, optimizer.weight_decay)
    print(format_groups(model, settings, optimizer.lr))
