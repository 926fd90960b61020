"""``--cfg-options``: from ``key=value`` strings to settings whose keys exist."""
import ast
import difflib
import inspect

from mmengine.config import Config, DictAction

from ..errors import UserError

# top-level keys that the runner or the MM packages read, besides the arguments of mmengine's Runner
EXTRA_KEYS = {'custom_imports', 'data_root', 'find_unused_parameters', 'model_wrapper_cfg', 'sync_bn', 'tta_model',
              'tta_pipeline', 'backend_args', 'resume'}


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
    """A Python literal, also with ``dict(key=value)``; otherwise as mmengine parses it (``a,b`` is a list)."""
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


def keep_tuple(cfg: Config, key: str, value):
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
