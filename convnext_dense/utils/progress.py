"""Progress bars: one line that is redrawn on a terminal, a line every ten seconds elsewhere."""
import sys

from tqdm import tqdm

FORMAT = '{desc} {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]'


def progress_bar(description: str, total: int | None = None, unit: str = 'it', **options) -> tqdm:
    """A tqdm bar on stderr.

    Args:
        description: what is counted, in the plural, as ``images``.
        total: how many there are; None when that is not known before the end.
        unit: of the rate, as ``image``.
        **options: of tqdm, as ``unit_scale`` and ``initial``.
    """
    on_terminal = sys.stderr.isatty()
    return tqdm(desc=description, total=total, unit=f' {unit}', mininterval=0.2 if on_terminal else 10,
                maxinterval=10, dynamic_ncols=True, bar_format=None if total is None else FORMAT, file=sys.stderr,
                **options)
