"""Which of mmcv's operators the sources and stock configs of mmdet and mmseg reach, read from their code."""
import ast
import importlib
import importlib.util
import inspect
from collections import defaultdict
from functools import cache
from pathlib import Path

from mmengine.registry import MODELS


def reached() -> dict[str, dict[str, set[str]]]:
    """Operator of ``mmcv._ext`` -> name in mmcv.ops that calls it -> files of mmdet and mmseg that use that name."""
    operators = defaultdict(lambda: defaultdict(set))
    for name, files in used_names().items():
        for operator in calls(name):
            operators[operator][name] |= files
    return {operator: dict(users) for operator, users in sorted(operators.items())}


def used_names() -> dict[str, set[str]]:
    """Public name of mmcv.ops -> files of mmdet and mmseg, stock configs included, that use it.

    By import, or as a string: a type in a config, or one that the code gives to a registry.
    """
    import mmcv.ops
    by_string = {name: name for name in vars(mmcv.ops) if name[0] != '_' and module_of(name)}
    by_string |= {key: cls.__name__ for key, cls in MODELS.module_dict.items()
                  if cls.__module__.startswith('mmcv.ops')}
    found = defaultdict(set)
    for package in ('mmdet', 'mmseg'):
        root = Path(importlib.util.find_spec(package).origin).parent
        for file in sorted(root.rglob('*.py')):
            for node in (node for top in ast.parse(file.read_text('utf-8')).body if not _is_all(top)
                         for node in ast.walk(top)):
                if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('mmcv.ops'):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in by_string:
                    names = [by_string[node.value]]
                else:
                    continue
                for name in names:
                    found[name].add(f'{package}/{file.relative_to(root)}')
    return found


def _is_all(node: ast.stmt) -> bool:
    """Whether a statement is ``__all__ = [...]``, which names the module's own."""
    return isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', None) == '__all__'


def module_of(name: str) -> str | None:
    """The module of mmcv.ops that defines a public name, or None."""
    import mmcv.ops
    found = getattr(mmcv.ops, name, None)
    found = getattr(found, '__self__', None) or found  # an autograd function's ``apply``
    module = getattr(inspect.unwrap(found), '__module__', None) if callable(found) else None
    return module if module and module.startswith('mmcv.ops.') else None


@cache
def calls(name: str, module: str | None = None) -> frozenset[str]:
    """Operators that the function or class ``name`` of mmcv.ops calls, through others there, too."""
    module = module or module_of(name)
    if module is None:
        return frozenset()
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    imported, defined = {}, {}
    for node in body:
        if isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name('.' * node.level + (node.module or ''), module.rpartition('.')[0]) \
                if node.level else node.module
            imported |= {alias.asname or alias.name: source for alias in node.names if source.startswith('mmcv.ops.')}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            defined[node.targets[0].id] = node
    found, queue, seen = set(), [name], set()
    while queue:
        current = queue.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in imported:
            found |= calls(current, imported[current])
            continue
        nodes = list(ast.walk(defined.get(current, ast.Pass())))
        # for another kind of device, as ModulatedDeformConv2dFunction._npu_forward
        elsewhere = {id(node.value) for node in nodes if isinstance(node, ast.Attribute) and '_npu_' in node.attr}
        for node in nodes:
            if id(node) in elsewhere:
                continue
            if isinstance(node, ast.Attribute) and getattr(node.value, 'id', None) == 'ext_module':
                found.add(node.attr)
            elif isinstance(node, ast.Name) and node.id != current and (node.id in defined or node.id in imported):
                queue.append(node.id)
    return frozenset(found)
