"""Every published recipe: its whole resolved config equals the official one, value for value, both ways round."""
import functools
import inspect
import json

import pytest
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from rows import ROWS, load_row
from translation import ANY, NO_COUNTERPART, NORMALIZE, OURS_ONLY, TABLES, TYPES, VARIABLES, matcher, translated

from convnext_dense.models import ConvNeXt
from convnext_dense.models.convnext import parse_arch

KEYS = {*inspect.signature(Runner).parameters, 'custom_imports', 'tta_model', 'tta_pipeline'}
DEFAULTS = {path: inspect.signature(cls).parameters[path.rpartition('.')[2]].default for path, cls in (
    ('model.backbone.in_channels', ConvNeXt), ('optim_wrapper.accumulative_counts', OptimWrapper))}


def leaves(node, path: str = '') -> dict:
    """{path: value} of everything in a config; a list without dicts inside is one value."""
    if isinstance(node, dict) and node:
        parts = node.items()
    elif isinstance(node, (list, tuple)) and any(isinstance(leaf, dict) for leaf in flattened(node)):
        parts = enumerate(node)
    else:
        return {path: json.loads(json.dumps(node))}  # tuples as lists
    return {key: value for name, part in parts for key, value in leaves(part, f'{path}.{name}'.lstrip('.')).items()}


def flattened(node) -> list:
    return [leaf for item in node for leaf in flattened(item)] if isinstance(node, (list, tuple)) else [node]


def at(config: dict, path: str):
    for part in path.split('.'):
        config = config[int(part)] if isinstance(config, list) else config[part]
    return config


def without_variables(official: dict, task: str) -> dict:
    """An official config without its variables, after a look that each is used."""
    rest = dict(official)
    for name, path in VARIABLES[task].items():
        assert rest.pop(name) == at(official, path), name
    assert dict(rest.pop('img_norm_cfg'), type='Normalize') == at(official, NORMALIZE[task])
    return rest


@functools.cache
def ours_of(name: str) -> dict:
    """Our leaves, the variables of the config files left out and the architecture written out."""
    cfg = load_row(next(row for row in ROWS if row['name'] == name)).to_dict()
    for variable in cfg.keys() - KEYS:
        assert variable in {'dataset_type', 'data_root', 'train_pipeline', 'test_pipeline', 'scales', 'norm_cfg'}
    depths, channels = parse_arch(cfg['model']['backbone']['arch'])
    cfg['model']['backbone']['arch'] = dict(depths=depths, channels=channels)
    return leaves({key: value for key, value in cfg.items() if key in KEYS})


def listed(table: list, path: str, value) -> bool:
    """Whether a table of exceptions has that path with that value."""
    return any((expected is ANY or expected == value) and matcher(pattern).fullmatch(path)
               for pattern, expected, _ in table)


def targets(task: str, path: str) -> tuple[list[str], object]:
    """Our paths for an official one, and what becomes of its value."""
    for pattern, ours, change in TABLES[task]:
        found = [translated(path, pattern, target) for target in ([ours] if isinstance(ours, str) else ours)]
        if found[0] is not None:
            return found, change
    return [], None


def compare(official: dict, ours: dict, task: str) -> tuple[list[str], int, int]:
    """What differs, how many official values are in ours, and how many have no counterpart."""
    wrong, seen, none = [], set(), 0
    for path, value in leaves(without_variables(official, task)).items():
        if listed(NO_COUNTERPART, path, value):
            none += 1
            continue
        paths, change = targets(task, path)
        if not paths:
            wrong.append(f'{path}={value!r} is translated nowhere')
        for target in paths:
            found = ours.get(target, DEFAULTS.get(target, 'nothing'))
            found = TYPES.get(found, found) if isinstance(found, str) else found
            seen.add(target)
            if found != (change(value) if change else value):
                wrong.append(f'{path}={value!r}, but {target}={found!r}')
    wrong += [f'{path}={value!r} is in no official config' for path, value in ours.items()
              if path not in seen and not listed(OURS_ONLY[task], path, value)]
    return wrong, len(seen), none


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['name'])
def test_whole_config_equals_the_official_one(row, official_configs):
    wrong, _, _ = compare(official_configs[row['name']], ours_of(row['name']), row['task'])
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('task', TABLES)
def test_every_line_of_the_tables_is_needed(task, official_configs):
    """A line that no config uses says something that nothing holds it to."""
    rows = [row for row in ROWS if row['task'] == task]
    official = [leaves(without_variables(official_configs[row['name']], task)) for row in rows]
    paths = {path for config in official for path in config}
    ours = [ours_of(row['name']) for row in rows]
    for pattern, _, _ in TABLES[task]:
        assert any(matcher(pattern).fullmatch(path) for path in paths), pattern
    for line in OURS_ONLY[task]:
        assert any(listed([line], path, value) for config in ours for path, value in config.items()), line


def test_every_line_without_counterpart_is_needed(official_configs):
    official = [leaves(without_variables(official_configs[row['name']], row['task'])) for row in ROWS]
    for line in NO_COUNTERPART:
        assert any(listed([line], path, value) for config in official for path, value in config.items()), line


@pytest.mark.parametrize('path, value', [
    ('model.test_cfg.rpn.min_bbox_size', 0), ('param_scheduler.0.end', 500), ('model.backbone.drop_path_rate', 0.5),
    ('model.roi_head.mask_head.num_convs', 3), ('train_dataloader.dataset.pipeline.2.direction', 'vertical')])
def test_a_changed_value_is_found(path, value, official_configs):
    """The comparison fails on one wrong value, and on one that the official config does not have."""
    row = ROWS[0]
    wrong, _, _ = compare(official_configs[row['name']], {**ours_of(row['name']), path: value}, row['task'])
    assert len(wrong) >= 1 and all(path in line for line in wrong)
