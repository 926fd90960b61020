"""What users may rely on: exported and registered names, commands, configs. Run as a script, it writes the record.

    python tests/packaging/public_surface.py    # after a deliberate change; name it in CHANGELOG.md, too
"""
import importlib
import json
import pkgutil
from pathlib import Path

import convnext_dense
from convnext_dense.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / 'tests/data/public_surface.json'
EXPORTING = ('convnext_dense', 'convnext_dense.models', 'convnext_dense.checkpoints', 'convnext_dense.optim',
             'convnext_dense.config', 'convnext_dense.report', 'convnext_dense.deploy', 'convnext_dense.runtime')
REGISTRIES = ('MODELS', 'DATASETS', 'TRANSFORMS', 'METRICS', 'HOOKS', 'OPTIM_WRAPPERS', 'OPTIM_WRAPPER_CONSTRUCTORS')


def public_surface() -> dict:
    """Kind -> sorted names."""
    for module in pkgutil.walk_packages(convnext_dense.__path__, f'{convnext_dense.__name__}.'):
        if not module.name.endswith('__main__'):
            importlib.import_module(module.name)  # some classes register when a command first needs them
    registries = {f'{package} {name}': getattr(importlib.import_module(f'{package}.registry'), name)
                  for package in ('mmengine', 'mmdet', 'mmseg') for name in REGISTRIES}
    for registry in registries.values():
        registry.import_from_location()
    registered = {name: sorted(key for key, value in registry.module_dict.items()
                               if value.__module__.startswith(f'{convnext_dense.__name__}.'))
                  for name, registry in registries.items()}
    return {
        'exported': {module: sorted(importlib.import_module(module).__all__) for module in EXPORTING},
        'registered': {name: names for name, names in registered.items() if names},
        'commands': sorted(name for names in COMMANDS.values() for name in names),
        'configs': sorted(str(file.relative_to(ROOT)) for file in ROOT.glob('configs/**/*.py'))}


if __name__ == '__main__':
    RECORD.write_text(json.dumps(public_surface(), indent=1) + '\n')
