"""What every command-line tool shares: errors in one sentence, interrupts, and the console command."""
import shlex
import sys
from collections.abc import Callable

import torch

from .errors import UserError
from .locations import TOOLS


def run_tool(main: Callable[[], None], resumable: bool = False) -> None:
    """Run a tool's ``main`` and exit: 0 when it worked, 2 after a mistake the user can mend, 130 after Ctrl-C.

    A `UserError` is printed as one line on stderr. Any other exception keeps its traceback, because it is a defect
    that somebody has to find.

    Args:
        main: the tool.
        resumable: whether the tool has --resume; an interrupt then says how to go on.
    """
    try:
        main()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # a process that ends with gloo's threads running may abort
    except UserError as error:
        # raised in a data loader's worker, the sentence arrives at the end of that process's traceback
        print(f'error: {str(error).rpartition("UserError: ")[2].strip()}', file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, Exception) as error:
        if not was_interrupted(error):
            raise
        print('interrupted' + (f'; continue with: {resume_command(sys.argv)}' if resumable else ''), file=sys.stderr)
        sys.exit(130)


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an exception: mmengine's config formatter, for one, turns it into a SyntaxError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def resume_command(argv: list[str]) -> str:
    """The command line that continues the run which ``argv`` (program first) started."""
    program = f'python {shlex.quote(argv[0])}' if argv[0].endswith('.py') else argv[0]
    return ' '.join([program, shlex.join(argv[1:]), *([] if '--resume' in argv else ['--resume'])])


def main() -> None:
    """``convnext-dense TOOL [arguments]``: run ``tools/TOOL.py``, wherever the package is installed."""
    tools = {file.stem: file for file in sorted(TOOLS.glob('*.py'))}
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name not in tools:
        asked_for_help = name in ('-h', '--help')
        print(f'usage: convnext-dense TOOL [arguments]; tools: {", ".join(tools)} (each has --help)',
              file=sys.stdout if asked_for_help else sys.stderr)
        sys.exit(0 if asked_for_help else 2)
    sys.argv = [f'convnext-dense {name}', *sys.argv[2:]]
    # not runpy, which would put the file's path in the place of the name that --help shows
    exec(compile(tools[name].read_bytes(), tools[name], 'exec'), {'__name__': '__main__', '__file__': str(tools[name])})
