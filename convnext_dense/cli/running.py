"""What every command shares: errors in one sentence, interrupts, command lines to print."""
import contextlib
import errno
import io
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import convnext_dense

from ..errors import Terminated, UserError, find_cause
from ..mm.environment import launched_rank

COMMAND = 'CONVNEXT_DENSE_COMMAND'  # in it, tools/dist_train.sh and slurm_train.sh tell how they were called


def run_tool(main: Callable[[], None], resumable: bool = False, with_torch: bool = True) -> None:
    """Run a tool's ``main`` and exit: 0 when it worked, 2 after an error the user can fix, 130 or 143 when stopped.

    A `UserError`, a file that cannot be read or written, a full disk and a killed worker of a data loader are one line
    on stderr. So are Ctrl-C (130) and, for a resumable tool, SIGTERM and SIGUSR1 (143, what Slurm and `kill` send); of
    several ranks, the first one says it. A rank that lost another one names it, and exits with status 1. A reader of
    the output that goes away (``| head``) ends the tool without a word (141). Any other exception keeps its traceback,
    because it is a defect that somebody has to find.

    Args:
        main: the tool.
        resumable: whether the tool has --resume; what stops it then says how to continue.
        with_torch: whether torch and the MM packages are prepared first, which takes seconds.
    """
    go_on = f'; {how_to_continue(sys.argv)}' if resumable else ''

    def stop_at_once(signum, frame):  # nothing can be lost yet, and extension modules swallow an exception or abort
        stop(_signalled(signum), go_on, at_once=True)

    try:
        _handle_signals(resumable, stop_at_once)
        if with_torch and not asked_for_help():
            convnext_dense.prepare()
        _handle_signals(resumable, _raise)
        _run(main)
    except UserError as error:
        tell_other_ranks(error)
        # raised in a data loader's worker, the sentence arrives at the end of that process's traceback
        fail(str(error).rpartition('UserError: ')[2].strip())
    except (KeyboardInterrupt, Exception) as error:
        stopped = find_cause(error, is_interrupt)
        tell_other_ranks(error)
        if stopped is not None:
            stop(stopped, go_on)
        if isinstance(error, BrokenPipeError):
            leave_quietly()
        full, killed = find_cause(error, is_disk_full), find_cause(error, is_worker_killed)
        refused = find_cause(error, is_refused)
        if full is not None:
            where = full.filename or 'while writing a file'
            fail(f'the disk is full ({where}); what was complete before is untouched: '
                 f'free some space{go_on}')
        if refused is not None:
            name = re.sub(r'\.([^/\\]+)\.\d+\.part(\.\w+)?$', r'\1', str(refused.filename))  # of `atomic_write`
            fail(f'{name} cannot be read or written ({refused.strerror}): check who may use the file and its folder, '
                 f'or name another place{go_on}')
        if killed is None:
            fail_at_setting(error)
            raise
        fail(f'a process that loads data died ({explain_killed(str(killed))}{go_on}')


def asked_for_help() -> bool:
    return not {'-h', '--help'}.isdisjoint(sys.argv[1:])


def _handle_signals(resumable: bool, handler: Callable) -> None:
    """Ctrl-C, also where the parent (a background shell, for one) ignored it, and the signals of a scheduler."""
    for number in (signal.SIGINT, *([signal.SIGTERM, signal.SIGUSR1] if resumable else [])):
        signal.signal(number, handler)


def _raise(signum, frame) -> None:
    raise _signalled(signum)


def _signalled(signum: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if signum == signal.SIGINT else Terminated()


def _run(main: Callable[[], None]) -> None:
    """Run a tool's ``main``."""
    if asked_for_help():
        text = io.StringIO()
        try:
            with contextlib.redirect_stdout(text):
                main()
        finally:
            print(as_called(text.getvalue()), end='', flush=True)
        return
    main()
    if rank_watch() is not None:
        rank_watch().close()
    if in_process_group():
        sys.modules['torch'].distributed.destroy_process_group()  # else a process that ends may abort in gloo's threads
    sys.stdout.flush()


def rank_watch():
    """What watches the other ranks of this run (`engine.ranks`), or None."""
    ranks = sys.modules.get('convnext_dense.engine.ranks')
    return ranks and ranks.current_watch()


def tell_other_ranks(error: BaseException) -> None:
    """Before this rank ends with an error, say so to the others; where another one died first, name it and exit."""
    watch = rank_watch()
    if watch is None or watch.closed:
        return
    if watch.ending:  # all have stopped together, with a checkpoint; perhaps because a launcher died
        if watch.wait_for_sentence(2) is not None:
            watch.end()
        watch.closed = True
        return
    stopped = find_cause(error, is_interrupt)
    lost = find_cause(error, sys.modules['convnext_dense.engine.ranks'].is_lost_connection)
    if lost is not None or isinstance(stopped, Terminated):  # a launcher terminates the ranks beside one that died
        if watch.wait_for_sentence(20 if lost is not None else 10) is not None:
            watch.end()
    elif stopped is None:  # Ctrl-C reaches all
        watch.failed(error)


def fail(sentence: str) -> None:
    """Print an error and exit with status 2."""
    print(f'error: {as_called(sentence)}', file=sys.stderr)
    sys.exit(2)


def fail_at_setting(error: BaseException) -> None:
    """Fail where a class does not take what the config gives it; return where that is not what happened."""
    if 'mmengine' in sys.modules:
        from ..config.settings import explain_settings  # late: it imports mmengine
        found = []
        find_cause(error, lambda each: bool(found.append(explain_settings(each)) or found[-1]))
        if found[-1]:
            fail(found[-1])


def as_called(text: str) -> str:
    """Text with other commands named in the way in which this one was called: by a file, or ``convnext-dense NAME``."""
    if Path(sys.argv[0]).suffix == '.py':
        return text
    return re.sub(r'(?:python )?tools/(\w+)\.py', r'convnext-dense \1', text)


def leave_quietly() -> None:
    """Exit after the reader of the output went away, with the status that a shell gives SIGPIPE."""
    with open(os.devnull, 'w') as nowhere, contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())  # python flushes the output once more when it ends
    sys.exit(141)


def stop(signalled: BaseException, go_on: str, at_once: bool = False) -> None:
    """Exit after Ctrl-C or SIGTERM; the first rank says that it stopped, and how to continue.

    Args:
        at_once: exit without python's clean-up, which a half-imported extension module may abort.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # a launcher sends SIGTERM after the terminal's SIGINT
        signal.signal(number, signal.SIG_IGN)
    terminated = isinstance(signalled, Terminated)
    status = 143 if terminated else 130
    if launched_rank(launcher_of(sys.argv)) == 0:
        print(f'{"terminated" if terminated else "interrupted"}{go_on}', file=sys.stderr, flush=True)
    if at_once or in_process_group():
        sys.stdout.flush()
        os._exit(status)  # a normal exit would wait for the other ranks, which are in a collective call
    sys.exit(status)


def in_process_group() -> bool:
    """Whether this process is a rank of several."""
    torch = sys.modules.get('torch')  # not imported before a command has read its arguments
    distributed = getattr(torch, 'distributed', None)
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def is_interrupt(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt)


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_refused(error: BaseException) -> bool:
    """A file or folder that this user may not use, as on a file system that is read-only."""
    return isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) \
        and error.filename is not None


def is_worker_killed(error: BaseException) -> bool:
    """torch raises it in the main process, amid whatever that is doing."""
    return isinstance(error, RuntimeError) and str(error).startswith('DataLoader worker (pid')


def explain_killed(message: str) -> str:
    """What ended a data loader's worker, in torch's words, and what to do about it."""
    remedy = '/dev/shm is full: give the container more (docker run --shm-size=8g)' if 'Bus error' in message \
        else 'the system kills processes when memory runs out: see dmesg'
    return f'{message.split(". ")[0].rstrip(". ")}); {remedy}, or use fewer workers ' \
           '(--cfg-options train_dataloader.num_workers=1)'


def how_to_continue(argv: list[str]) -> str:
    """What to do to continue the run which ``argv`` (program first) started."""
    command = os.environ.get(COMMAND)
    if command is None and launcher_of(argv) != 'none':
        return 'continue with the same command and --resume'  # a launcher other than ours
    return f'continue with: {resume_command(argv if command is None else shlex.split(command))}'


def resume_command(argv: list[str]) -> str:
    """A command line with ``--resume`` instead of ``--resume FILE``: the run has checkpoints of its own by now."""
    words = list(argv)
    if '--resume' in words:
        index = words.index('--resume')
        del words[index:index + (2 if words[index + 1:] and not words[index + 1].startswith('-') else 1)]
    words = [word for word in words if not word.startswith('--resume=')]
    program = words[0] if words[0].startswith('convnext-dense ') else shlex.quote(words[0])
    if words[0].endswith('.py'):
        program = f'python {program}'
    return f'{program} {shlex.join([*words[1:], "--resume"])}'


def launcher_of(argv: list[str]) -> str:
    """The value of ``--launcher``."""
    for word, following in zip(argv, [*argv[1:], ''], strict=True):
        if word == '--launcher':
            return following
        if word.startswith('--launcher='):
            return word.partition('=')[2]
    return 'none'


def tool_line(name: str, *arguments) -> str:
    """The command line of another tool, written as this one was called: by its file or through the console command."""
    script = Path(sys.argv[0])
    program = f'python {shlex.quote(str(script.with_name(name + ".py")))}' if script.suffix == '.py' \
        else f'convnext-dense {name}'
    return f'{program} {shlex.join(map(str, arguments))}'
