"""Progress bars: one line that is redrawn on a terminal, a line every ten seconds elsewhere."""
import sys
import time

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


class Progress:
    """Counts what is done and shows it, with the rate, on stderr.

    Args:
        unit: what is counted, in the plural.
        total: how many there are; None when that is not known before the end.
    """

    def __init__(self, unit: str, total: int | None = None):
        self.unit, self.total, self.done = unit, total, 0
        self.began = self.shown = time.monotonic()
        self.on_terminal = sys.stderr.isatty()

    def add(self, count: int) -> None:
        """Count `count` more, and show it if the last line is old enough."""
        self.done += count
        now = time.monotonic()
        if now - self.shown >= (0.2 if self.on_terminal else 10):
            self.shown = now
            self._write()

    def end(self) -> None:
        """Show the final count."""
        self._write()
        if self.on_terminal:
            sys.stderr.write('\n')

    def _write(self) -> None:
        of = '' if self.total is None else f'/{self.total}'
        rate = self.done / max(time.monotonic() - self.began, 1e-9)
        line = f'{self.done}{of} {self.unit}, {rate:.1f} a second'
        sys.stderr.write(f'\r{line}\x1b[K' if self.on_terminal else f'{line}\n')
        sys.stderr.flush()


def show_progress(what: str, done: int, total: int) -> None:
    """A line on stderr that counts up on a terminal; elsewhere a line per quarter."""
    if sys.stderr.isatty():
        print(f'\r{what} {done}/{total}', end='\n' if done == total else '', file=sys.stderr, flush=True)
    elif done == total or done % max(1, total // 4) == 0:
        print(f'{what} {done}/{total}', file=sys.stderr, flush=True)
