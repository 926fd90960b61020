"""The exception for errors the user can fix, how its sentences list things, and what is behind an exception."""
from collections.abc import Callable


class UserError(ValueError):
    """Wrong input: one sentence that names the thing, what was expected, what was found and what to do.

    The command-line tools print it as ``error: ...`` and exit with status 2; anything else keeps its traceback.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 was received, by which a scheduler ends a job."""


def few(values, shown: int = 5) -> str:
    """The first values, for a sentence: ``1, 2, 3, ... (10 in all)``."""
    values = sorted(values) if isinstance(values, (set, frozenset)) else list(values)
    text = ', '.join(map(str, values[:shown]))
    return (text + (f', ... ({len(values)} in all)' if len(values) > shown else '')) or 'none'


def first_line(error: Exception | str, length: int = 160) -> str:
    """The start of what an exception says, for a sentence: one line without control characters."""
    line = (str(error).strip().splitlines() or [''])[0][:length]
    return ''.join(each if each.isprintable() else '?' for each in line) or type(error).__name__


def find_cause(error: BaseException | None, wanted: Callable[[BaseException], bool]) -> BaseException | None:
    """The first exception behind ``error``, itself included, that is ``wanted``, or None.

    Others hide what happened: mmengine's config formatter, for one, turns Ctrl-C into a SyntaxError.
    """
    while error is not None and not wanted(error):
        error = error.__cause__ or error.__context__
    return error
