"""The one exception type for mistakes a user can mend."""


class UserError(ValueError):
    """Wrong input: one sentence that names the thing, what was expected, what was found and what to do.

    The command-line tools print it as ``error: ...`` and exit with status 2; anything else keeps its traceback.
    """
