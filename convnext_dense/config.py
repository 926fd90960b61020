"""From a config file and command-line overrides to a config that is complete, consistent and fits this machine."""
import ast
import difflib
import inspect
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction

from . import stack
from .errors import UserError
from .locations import CONFIGS, ROOT

OWN_PREFIX = 'convnext_dense::'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')
# top-level keys that the runner or the MM packages read, besides the arguments of mmengine's Runner
EXTRA_KEYS = {'custom_imports', 'data_root', 'find_unused_parameters', 'model_wrapper_cfg', 'sync_bn', 'tta_model',
              'tta_pipeline', 'backend_args', 'resume'}


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
    stack.require(*(('mmcv', scope) if scope in ('mmdet', 'mmseg') else ()))
    options = parse_options(cfg_options or [])
    check_option_keys(cfg, options)
    cfg.merge_from_dict({key: _keep_tuple(cfg, key, value) for key, value in options.items()})
    if data_root is not None:
        set_data_root(cfg, data_root)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'work_dirs/{file.stem}'
    return cfg


def find_config(path: str) -> Path:
    """The file that ``path`` names: as given, or among the configs that travel with the package.

    Raises:
        UserError: neither exists; names the nearest config.
    """
    path = path.removeprefix(OWN_PREFIX)
    for candidate in (Path(path), ROOT / path, CONFIGS / path):
        if candidate.is_file():
            return candidate.resolve() if candidate != Path(path) else candidate
    known = {str(file.relative_to(ROOT)): file for file in sorted(CONFIGS.glob('*/*.py'))}
    names = {Path(name).name: name for name in known}
    near = difflib.get_close_matches(Path(path).name, names, n=1, cutoff=0.5)
    hint = f'; the nearest one is {names[near[0]]}' if near else f'; there are {", ".join(known)}' if known else ''
    raise UserError(f'config {path} does not exist{hint}')


def parse_options(options: list[str]) -> dict:
    """Turn ``['a.b=1', 'c=x,y']`` into ``{'a.b': 1, 'c': ['x', 'y']}``.

    Raises:
        UserError: an entry without ``=``.
    """
    parsed = {}
    for option in options:
        key, equals, value = option.partition('=')
        if not equals or not key:
            raise UserError(f'--cfg-options {option!r}: expected key=value')
        parsed[key] = _parse_value(value)
    return parsed


def _parse_value(text: str):
    """A Python literal, also with ``dict(key=value)``; else what mmengine makes of it (``a,b`` is a list)."""
    try:
        value = ast.literal_eval(_DictCalls().visit(ast.parse(text, mode='eval')))
        return list(value) if isinstance(value, tuple) and not text.startswith('(') else value
    except (ValueError, SyntaxError):
        return DictAction._parse_iterable(text) if '(' not in text else text


class _DictCalls(ast.NodeTransformer):
    """Rewrite ``dict(a=1)`` as ``{'a': 1}``, which ast.literal_eval accepts."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if getattr(node.func, 'id', None) != 'dict' or node.args or any(word.arg is None for word in node.keywords):
            return node
        return ast.Dict([ast.Constant(word.arg) for word in node.keywords], [word.value for word in node.keywords])


def check_option_keys(cfg: Config, options: dict) -> None:
    """Refuse an option that would silently create a new branch of the config.

    The last part of a key may be new (a constructor's argument that the recipe leaves at its default); everything
    before it, and a top-level key, must be known.

    Raises:
        UserError: names the unknown part and the nearest known one.
    """
    for key in options:
        node, walked = cfg, []
        parts = key.split('.')
        for part in parts[:-1] or parts:
            known = _children(node)
            if part not in known:
                if not walked and part in runner_keys():
                    break  # for example randomness.seed in a recipe without randomness
                near = difflib.get_close_matches(part, sorted(known | (runner_keys() if not walked else set())), n=1)
                where = '.'.join(walked) or 'the config'
                raise UserError(f'--cfg-options {key}: {where} has no {part!r}'
                                + (f'; did you mean {".".join([*walked, near[0]])}?' if near
                                   else f'; it has {", ".join(sorted(known))}'))
            walked.append(part)
            node = node[int(part)] if isinstance(node, (list, tuple)) else node[part]


def _keep_tuple(cfg: Config, key: str, value):
    """``scale=640,400`` parses as a list; where the config has a tuple, MM's transforms want a tuple."""
    node = cfg
    for part in key.split('.'):
        if part not in _children(node):
            return value
        node = node[int(part)] if isinstance(node, (list, tuple)) else node[part]
    return tuple(value) if isinstance(node, tuple) and isinstance(value, list) else value


def _children(node) -> set[str]:
    if isinstance(node, (list, tuple)):
        return {str(index) for index in range(len(node))}
    return set(node) if isinstance(node, dict) or hasattr(node, 'keys') else set()


def runner_keys() -> set[str]:
    """Top-level config keys that mean something to the runner."""
    from mmengine.runner import Runner
    return set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | EXTRA_KEYS


def set_data_root(cfg: Config, data_root: str) -> None:
    """Point every data loader and evaluator at ``data_root``, in place.

    A recipe writes its root into each data set (``data_root``) and into evaluator paths that start with it
    (``ann_file``); all of them move.

    Raises:
        UserError: the config names no data root, so nothing would have moved.
    """
    old = {str(dataset['data_root']) for key in LOADERS for dataset in datasets_of(cfg.get(key))
           if dataset.get('data_root')}
    if not old:
        raise UserError(f'--data-root {data_root}: no data set of {cfg.filename} has a data_root to replace; '
                        'set the paths with --cfg-options instead')
    roots = sorted({root.rstrip('/') for root in old}, key=len, reverse=True)

    def moved(node):
        if isinstance(node, dict):
            return ConfigDict({key: moved(value) for key, value in node.items()})
        if isinstance(node, (list, tuple)):
            return type(node)(moved(value) for value in node)
        if isinstance(node, str):
            for root in roots:
                if node.rstrip('/') == root or node.startswith(root + '/'):
                    return data_root.rstrip('/') + (node[len(root):] or '/')
        return node

    for key in (*LOADERS, *EVALUATORS):
        if cfg.get(key) is not None:
            cfg[key] = moved(cfg[key])
    if 'data_root' in cfg:
        cfg.data_root = data_root.rstrip('/') + '/'


def datasets_of(loader: dict | None) -> list[dict]:
    """The leaf data set configs of a loader, seen through wrappers (RepeatDataset, ConcatDataset, ...)."""
    if not loader or 'dataset' not in loader:
        return []
    leaves, queue = [], [loader['dataset']]
    while queue:
        node = queue.pop(0)
        inner = node.get('dataset'), *(node.get('datasets') or ())
        inner = [entry for entry in inner if isinstance(entry, dict)]
        queue.extend(inner)
        if not inner:
            leaves.append(node)
    return leaves
