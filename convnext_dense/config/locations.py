"""Where configs/ lies: inside the installed package (OpenMMLab's ``.mim`` folder) or beside it in a clone."""
import difflib
from pathlib import Path

from ..errors import UserError

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE / '.mim' if (PACKAGE / '.mim').is_dir() else PACKAGE.parent
CONFIGS = ROOT / 'configs'
OWN_PREFIX = 'convnext_dense::'


def find_config(path: str) -> Path:
    """The file that ``path`` names: as given, or among the configs that travel with the package.

    Raises:
        UserError: neither exists; names the nearest configs.
    """
    path = path.removeprefix(OWN_PREFIX)
    for candidate in (Path(path), ROOT / path, CONFIGS / path):
        if candidate.is_file():
            return candidate.resolve() if candidate != Path(path) else candidate
    known = {str(file.relative_to(ROOT)): file for file in sorted(CONFIGS.glob('*/*.py'))}
    names = {Path(name).name: name for name in known}
    longer = [name for name in names if name.startswith(Path(path).stem)]
    close = difflib.get_close_matches(Path(path).name, names, n=3, cutoff=0.5)
    near = [names[name] for name in dict.fromkeys(longer + close)][:3]
    hint = f'; the nearest {"one is" if len(near) == 1 else "ones are"} {", ".join(near)}' if near else \
        f'; expected a file, or one of the {len(known)} configs of the package (docs/recipes.md)'
    raise UserError(f'config {path} does not exist{hint}')
