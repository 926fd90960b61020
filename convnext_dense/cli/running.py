"""What every command shares: errors in one sentence, interrupts, the command line of another command."""
import errno
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from ..errors import UserError


def run_tool(main: Callable[[], None], resumable: bool = False) -> None:
    """Run a tool's ``main`` and exit: 0 when it worked, 2 after a mistake the user can mend, 130 or 143 when stopped.

    A `UserError` and a full disk are one line on stderr. Ctrl-C (130) and, for a resumable tool, SIGTERM (143, what
    Slurm and `kill` send) stop in one line, too. Any other exception keeps its traceback, because it is a defect that
    somebody has to find.

    Args:
        main: the tool.
        resumable: whether the tool has --resume; an interrupt then says how to go on.
    """
    go_on = f'; continue with: {resume_command(sys.argv)}' if resumable else ''
    if resumable:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        main()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # a process that ends with gloo's threads running may abort
    except UserError as error:
        # raised in a data loader's worker, the sentence arrives at the end of that process's traceback
        print(f'error: {str(error).rpartition("UserError: ")[2].strip()}', file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, Exception) as error:
        full, stopped = find_cause(error, is_disk_full), find_cause(error, is_interrupt)
        if full is None and stopped is None:
            raise
        if stopped is not None:
            terminated = isinstance(stopped, Terminated)
            print(f'{"terminated" if terminated else "interrupted"}{go_on}', file=sys.stderr)
            sys.exit(143 if terminated else 130)
        print(f'error: the disk is full ({full.filename or "while writing a file"}); what was complete before is '
              f'untouched: free some space{go_on}', file=sys.stderr)
        sys.exit(2)


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken as what it is: a request to stop now."""


def _terminate(signum, frame) -> None:
    raise Terminated


def is_interrupt(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt)


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def find_cause(error: BaseException | None, wanted: Callable[[BaseException], bool]) -> BaseException | None:
    """The first exception behind ``error``, itself included, that is ``wanted``, or None.

    Others hide what happened: mmengine's config formatter, for one, turns Ctrl-C into a SyntaxError.
    """
    while error is not None and not wanted(error):
        error = error.__cause__ or error.__context__
    return error


def resume_command(argv: list[str]) -> str:
    """The command line that continues the run which ``argv`` (program first) started."""
    program = f'python {shlex.quote(argv[0])}' if argv[0].endswith('.py') else argv[0]
    return ' '.join([program, shlex.join(argv[1:]), *([] if '--resume' in argv else ['--resume'])])


def tool_line(name: str, *arguments) -> str:
    """The command line of another tool, spelt as this one was called: by its file or through the console command."""
    script = Path(sys.argv[0])
    program = f'python {shlex.quote(str(script.with_name(name + ".py")))}' if script.suffix == '.py' \
        else f'convnext-dense {name}'
    return f'{program} {shlex.join(map(str, arguments))}'
