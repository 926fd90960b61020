"""One way for the data tools to show how far they are."""
import sys


def show_progress(what: str, done: int, total: int) -> None:
    """A line on stderr that counts up on a terminal; elsewhere a line per quarter."""
    if sys.stderr.isatty():
        print(f'\r{what} {done}/{total}', end='\n' if done == total else '', file=sys.stderr, flush=True)
    elif done == total or done % max(1, total // 4) == 0:
        print(f'{what} {done}/{total}', file=sys.stderr, flush=True)
