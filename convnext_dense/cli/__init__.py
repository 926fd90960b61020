"""The commands: ``convnext-dense NAME`` and ``python tools/NAME.py`` both run ``convnext_dense/cli/NAME.py``."""
import ast
import difflib
import sys
from importlib import import_module
from pathlib import Path

from .running import run_tool

# in the order in which a user needs them; each module's docstring begins with the line that --help shows
COMMANDS = {
    'data': ('convert_dataset', 'check_dataset', 'browse_dataset', 'write_shards', 'make_shapes'),
    'training': ('new_project', 'train', 'show_lr'),
    'evaluation and inference': ('test', 'report', 'predict', 'reproduce'),
    'checkpoints and deployment': ('convert_checkpoint', 'publish_checkpoint', 'export'),
    'models and this machine': ('model_info', 'roadmap', 'benchmark', 'check_ops', 'check_swap', 'demo'),
}
RESUMABLE = ('train',)  # commands with --resume
WITHOUT_TORCH = ('convert_dataset', 'make_shapes')  # commands that import neither torch nor the MM packages


def main() -> None:
    """``convnext-dense NAME [arguments]``."""
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    names = [name for group in COMMANDS.values() for name in group]
    if name in ('-h', '--help'):
        print(overview())
    elif name == '--version':
        from ..mm import environment
        print('\n'.join(f'{package} {version}' for package, version in environment.versions().items()))
    elif name in names:
        sys.argv = [f'convnext-dense {name}', *sys.argv[2:]]
        run(name)
    else:
        near = difflib.get_close_matches(name.replace('-', '_'), names, n=2)
        hint = f'did you mean {" or ".join(near)}?' if near else 'convnext-dense --help lists all'
        print(f'error: convnext-dense has no command {name!r}: {hint}', file=sys.stderr)
        sys.exit(2)


def run(name: str) -> None:
    """Run one command with the arguments in ``sys.argv``, and exit."""
    def main() -> None:
        try:
            import_module(f'{__name__}.{name}').main()
        except ModuleNotFoundError as error:
            from ..mm import environment
            environment.require(error.name)  # one sentence for a package that is not installed
            raise

    run_tool(main, resumable=name in RESUMABLE, with_torch=name not in WITHOUT_TORCH)


def overview() -> str:
    """Every command with its one-line description, grouped by task."""
    lines = ['usage: convnext-dense NAME [arguments]; each command has --help, --version prints versions']
    for title, names in COMMANDS.items():
        lines.append(f'\n{title}:')
        for name in names:
            # read, not imported: an import takes seconds
            doc = ast.get_docstring(ast.parse(Path(__file__).with_name(f'{name}.py').read_text()))
            lines.append(f'  {name:20}{doc.splitlines()[0].rstrip(".")}')
    return '\n'.join(lines)
