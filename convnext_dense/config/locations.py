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
