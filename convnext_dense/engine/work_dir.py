"""The work dir of a run: one run at a time, and which of the checkpoints in it belong to the run."""
import errno
import json
import logging
import math
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.logging import print_log

from ..checkpoints import read_checkpoint
from ..errors import UserError, few, find_cause
from ..utils.files import atomic_write

LOCK, RECORD = '.lock', 'run.json'
INTERRUPTED = 'interrupted.pth'  # what Ctrl-C saves; newer than any other checkpoint, for the next one removes it
LOCK_WAIT = 10  # seconds; workers of a killed run keep its lock until they notice, within 5 s
CHECKPOINT = re.compile(r'(epoch|iter)_(\d+)\.pth')
LEFT_OVER = re.compile(r'\..+\.\d+\.part(\.\w+)?|.+\.pth\.part')  # what `atomic_write` leaves when it is killed
LOST = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ESTALE)


def make_work_dir(work_dir: str | Path) -> Path:
    """Create the folder.

    Raises:
        UserError: it cannot be created.
    """
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(work_dir, error) from error
    return Path(work_dir)


def new_work_dir(work_dir: str, exist: str = 'new') -> str:
    """The folder for a new run: ``work_dir``, or ``work_dir``2, 3, ... where it has a run, so that two are never mixed.

    Args:
        exist: 'new', as above, or 'stop': refuse a folder that has a run.

    Raises:
        UserError: it has one, and ``exist`` is 'stop'.
    """
    if not _has_run(work_dir):
        return work_dir
    if exist == 'stop':
        raise UserError(f'{work_dir} has a run already: continue it with --resume, or choose another folder with '
                        '--work-dir')
    number = 2
    while _has_run(f'{work_dir}{number}'):
        number += 1
    print_log(f'{work_dir} has a run already (--resume would continue the newest one): this one goes to '
              f'{work_dir}{number}', logger='current', level=logging.WARNING)
    return f'{work_dir}{number}'


def newest_work_dir(work_dir: str) -> str:
    """The folder of the newest run that `new_work_dir` placed: ``work_dir``, or the one with the highest number."""
    newest, number = work_dir, 2
    while _has_run(f'{work_dir}{number}'):
        newest, number = f'{work_dir}{number}', number + 1
    return newest


def _has_run(work_dir: str) -> bool:
    return any(file.name == RECORD or CHECKPOINT.fullmatch(file.name) for file in Path(work_dir).glob('*'))


@contextmanager
def owned_work_dir(work_dir: str | Path, rank: int = 0) -> Iterator[None]:
    """Lock a work dir for one training run, and remove files that a killed run left half-written.

    Args:
        work_dir: created where it does not exist.
        rank: of this process in its run; rank 0 takes the lock for all.

    Raises:
        UserError: another run trains there, or the folder cannot be written, at the beginning or later.
    """
    folder = make_work_dir(work_dir)
    lock = FileLock(folder / LOCK)
    try:
        if rank == 0:
            _acquire(lock, folder)
            for file in folder.iterdir():
                if LEFT_OVER.fullmatch(file.name) and file.is_file():
                    file.unlink()
        yield
    except Exception as error:  # others wrap what happened
        lost = find_cause(error, lambda cause: isinstance(cause, OSError) and cause.errno in LOST
                          and Path(str(cause.filename)).absolute().is_relative_to(folder.absolute()))
        if lost is None:
            raise
        raise _unwritable(work_dir, lost) from error
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(timeout=LOCK_WAIT)
    except Timeout:
        raise UserError(f'another training run is writing to {folder}: wait for its end, or choose another folder with '
                        '--work-dir') from None
    except NotImplementedError:
        print_log(f'the file system of {folder} has no locks: make sure that only one run trains there',
                  logger='current', level=logging.WARNING)


def _unwritable(work_dir: str | Path, error: OSError) -> UserError:
    return UserError(f'the work dir {work_dir} cannot be written ({error.strerror}: {error.filename}): expected a '
                     'folder that exists during the whole run and may be written to; name one with --work-dir')


def begin_run(work_dir: str | Path, continued: bool = False, resumed_from: str | None = None,
              iteration: int = 0) -> str:
    """The identity of the run that trains in a work dir from now on, recorded in ``run.json``.

    The run's checkpoints carry it, which distinguishes them from those of an earlier run in the same folder.

    Args:
        continued: keep the recorded run, if there is one.
        resumed_from: the checkpoint that a new run starts from, to resume from again until the run has its own.
        iteration: where a new run starts.
    """
    record = _read_record(work_dir)
    if continued and record:
        return record['run']
    record = {'run': uuid.uuid4().hex, 'resumed_from': resumed_from and str(Path(resumed_from).absolute()),
              'validated': iteration}
    _write_record(work_dir, record)
    return record['run']


def note_validation(work_dir: str | Path, iteration: int) -> None:
    """Record that the run of a work dir has completed the validation after ``iteration``."""
    _write_record(work_dir, {**(_read_record(work_dir) or {}), 'validated': iteration})


def last_validation(work_dir: str | Path) -> float:
    """The iteration after which the run of a work dir was last validated; infinity where that is not known."""
    return (_read_record(work_dir) or {}).get('validated', math.inf)


def latest_good_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest checkpoint of the work dir's run to resume from, or None.

    The newest readable ``interrupted.pth``, ``epoch_N.pth`` or ``iter_N.pth`` of the run that trained there last;
    before it has one, the file that it was resumed from. Only the structure of a file is read, not its tensors: a file
    that was cut off has no directory of its content, which comes last. mmengine's pointer file ``last_checkpoint`` is
    not trusted: a killed run can leave it behind or ahead.
    """
    record, others = _read_record(work_dir), []
    files = [file for file in Path(work_dir).glob('*.pth') if CHECKPOINT.fullmatch(file.name)]
    files.sort(key=lambda file: int(CHECKPOINT.fullmatch(file.name)[2]), reverse=True)
    for file in [*Path(work_dir).glob(INTERRUPTED), *files]:
        try:
            content = read_checkpoint(file, mmap=True)
            if record and _run_of(content) != record['run']:
                others.append(file.name)
                continue
            if 'optimizer' in content:
                return file
            reason = 'it holds no optimizer state'
        except UserError as error:
            reason = str(error)
        print_log(f'{file} cannot be resumed from, trying the one before: {reason}',
                  logger='current', level=logging.WARNING)
    if record and record.get('resumed_from') and Path(record['resumed_from']).is_file():
        return Path(record['resumed_from'])
    if others:
        print_log(f'{work_dir} has checkpoints of an earlier run only, which --resume ignores ({few(others)}): to '
                  'continue from one of them, name it with --resume FILE', logger='current', level=logging.WARNING)
    return None


def _run_of(checkpoint: dict) -> str | None:
    meta = checkpoint.get('meta')
    return meta.get('run') if isinstance(meta, dict) else None


def _write_record(work_dir: str | Path, record: dict) -> None:
    with atomic_write(Path(work_dir) / RECORD) as part:
        part.write_text(json.dumps(record) + '\n')


def _read_record(work_dir: str | Path) -> dict | None:
    try:
        record = json.loads(Path(work_dir, RECORD).read_text())
    except (OSError, ValueError):  # ValueError: not JSON, or not text
        return None
    return record if isinstance(record, dict) and isinstance(record.get('run'), str) else None
