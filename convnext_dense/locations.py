"""Where configs/ and tools/ lie: inside the installed package (OpenMMLab's ``.mim`` folder) or beside it in a clone."""
from pathlib import Path

PACKAGE = Path(__file__).parent
ROOT = PACKAGE / '.mim' if (PACKAGE / '.mim').is_dir() else PACKAGE.parent
CONFIGS = ROOT / 'configs'
TOOLS = ROOT / 'tools'
