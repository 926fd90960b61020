"""From a config file and command-line overrides to a complete, consistent config."""
from mmengine.config import Config

from ..errors import UserError
from ..mm import environment
from .dataloaders import set_data_root
from .locations import find_config
from .options import check_option_keys, keep_tuple, parse_options


def load_config(path: str, cfg_options: list[str] | None = None, data_root: str | None = None,
                work_dir: str | None = None) -> Config:
    """Read a config file and apply what the command line says about it.

    Args:
        path: a config file; when there is no such file, one of the package's own (``configs/det/...`` or
            ``det/...`` work from any folder).
        cfg_options: ``key=value`` strings, dotted keys; values as in mmengine's ``--cfg-options``.
        data_root: replaces the data root of every data loader and evaluator.
        work_dir: where results go; default: the config's own, else ``work_dirs/<config name>``.

    Raises:
        UserError: no such file, a file that is not a config, an option whose key does not exist, or the MM package
            that the config is for is missing or broken.
    """
    file = find_config(path)
    try:
        cfg = Config.fromfile(file)
    except (SyntaxError, NameError, KeyError, TypeError, OSError, ImportError, AssertionError) as error:
        raise UserError(f'{file} could not be read as a config: {type(error).__name__}: {error}') from error
    if 'model' not in cfg:
        raise UserError(f'{file} has no `model`: expected a whole recipe, found only '
                        f'{", ".join(list(cfg)[:8]) or "nothing"}; name a leaf config rather than a base')
    scope = cfg.get('default_scope')
    environment.require(*(('mmcv', scope) if scope in ('mmdet', 'mmseg') else ()))
    options = parse_options(cfg_options or [])
    check_option_keys(cfg, options)
    cfg.merge_from_dict({key: keep_tuple(cfg, key, value) for key, value in options.items()})
    if data_root is not None:
        set_data_root(cfg, data_root)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'work_dirs/{file.stem}'
    return cfg
