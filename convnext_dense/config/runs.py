"""The folder of a run (work dir): the config and the checkpoint in it."""
import re
from pathlib import Path

from ..errors import UserError

TRAINED = re.compile(r'(best_.*|(epoch|iter)_\d+)\.pth')  # checkpoints that training writes


def run_config(folder: str | Path) -> Path:
    """The newest config that a run wrote into its folder.

    Raises:
        UserError: no such folder, or no config in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder; expected a work dir of tools/train.py or tools/test.py')
    configs = sorted(folder.glob('*.py'), key=lambda file: file.stat().st_mtime)
    if not configs:
        raise UserError(f'{folder} holds no config (*.py): expected a work dir of tools/train.py or tools/test.py')
    return configs[-1]


def run_checkpoint(folder: str | Path) -> Path | None:
    """The newest ``best_*.pth`` of a run, else the newest ``epoch_N.pth`` or ``iter_N.pth``; None without any."""
    files = [file for file in Path(folder).glob('*.pth') if TRAINED.fullmatch(file.name)]
    return max(files, key=lambda file: (file.name.startswith('best_'), file.stat().st_mtime), default=None)


def open_run(folder: str | Path) -> tuple[Path, Path]:
    """Config and checkpoint of a run that has trained.

    Raises:
        UserError: as `run_config`, a project's folder, whose runs are in folders of their own, or no checkpoint.
    """
    config, checkpoint = run_config(folder), run_checkpoint(folder)
    if checkpoint is None:
        runs = sorted(path.parent for path in Path(folder).glob('*/*.pth') if TRAINED.fullmatch(path.name))
        hint = f'name its run, {runs[-1]}' if runs else 'train first, or name a config and its weights'
        raise UserError(f'{folder} has no checkpoint (best_*.pth, epoch_N.pth or iter_N.pth): {hint}')
    return config, checkpoint
