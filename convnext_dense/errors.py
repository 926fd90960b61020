"""The exception for errors the user can fix, and how its sentences list things."""


class UserError(ValueError):
    """Wrong input: one sentence that names the thing, what was expected, what was found and what to do.

    The command-line tools print it as ``error: ...`` and exit with status 2; anything else keeps its traceback.
    """


def few(values, shown: int = 5) -> str:
    """The first values, for a sentence: ``1, 2, 3, ... (10 in all)``."""
    values = sorted(values) if isinstance(values, (set, frozenset)) else list(values)
    text = ', '.join(map(str, values[:shown]))
    return (text + (f', ... ({len(values)} in all)' if len(values) > shown else '')) or 'none'
