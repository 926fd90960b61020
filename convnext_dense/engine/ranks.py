"""Several ranks: which one died first, and agreement on when all of them stop."""
import json
import os
import socket
import sys
import threading
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

BEAT = 1.0  # seconds between signs of life
SILENT = 60.0  # seconds without one after which a rank counts as dead; it may hold Python's lock for long
IN_TROUBLE = 5.0  # the same once a rank has lost its connection to another
GRACE = 5.0  # seconds for a rank to end by itself once another one is known to be dead
FIRST, TROUBLE = 'first', 'trouble'  # keys in the store

_watch = None  # of this process


class RankWatch(threading.Thread):
    """Notices when another rank, its launcher or the rendezvous is gone, and ends this one in one line.

    Each rank puts a sign of life into the store of the process group every second, and watches that of the next rank:
    the work does not grow with the number of ranks. Who finds a dead one, or fails itself, says so in the store; the
    first of them is named by every rank. A collective call waits for a dead rank for up to half an hour.

    Args:
        rank: of this process.
        ranks: number of processes.
        remedy: the end of the line, what to do.
    """

    def __init__(self, rank: int, ranks: int, remedy: str = ''):
        super().__init__(name='ranks', daemon=True)
        self.rank, self.ranks, self.remedy = rank, ranks, remedy
        store = _get_default_store()
        self.store = dist.PrefixStore('convnext_dense', store.clone())  # a connection of its own
        self.store.set_timeout(timedelta(seconds=10))
        self.where = f'{os.environ.get("MASTER_ADDR", "?")}:{os.environ.get("MASTER_PORT", "?")}'
        self.launcher = os.getppid() if 'TORCHELASTIC_RUN_ID' in os.environ else None
        self.sentence: str | None = None  # what ended the run
        self.closed = False  # the run has ended
        self.ending = False  # all ranks have agreed to stop
        self.store.set(f'host/{rank}', socket.gethostname())

    def run(self) -> None:
        beats, seen, since = 0, None, time.monotonic()
        following = (self.rank + 1) % self.ranks
        while not self.closed and self.sentence is None:
            try:
                beats += 1
                self.store.set(f'beat/{self.rank}', str(beats))
                if self.launcher is not None and os.getppid() != self.launcher:
                    self.report(self.rank, 'its launcher (torchrun) died')
                if self.store.check([f'beat/{following}']):
                    beat = self.store.get(f'beat/{following}')
                    if beat != seen:
                        seen, since = beat, time.monotonic()
                    elif time.monotonic() - since > (IN_TROUBLE if self.store.check([TROUBLE]) else SILENT):
                        self.report(following, 'it gives no sign of life')
                if self.store.check([FIRST]):
                    self.sentence = self.describe(json.loads(self.store.get(FIRST)))
            except Exception:  # torch raises several kinds
                if not self.closed:
                    self.sentence = f'the rendezvous at {self.where} cannot be reached: that host, or the launcher ' \
                                    'there, died first'
            time.sleep(BEAT)
        if self.sentence is not None:
            time.sleep(GRACE)
            if not self.closed and not self.ending:  # the main thread waits in a collective call
                self.end()

    def report(self, rank: int, reason: str) -> None:
        """Say in the store that a rank is dead, unless another one was before."""
        host = self.store.get(f'host/{rank}').decode()
        self.store.compare_set(FIRST, '', json.dumps({'rank': rank, 'host': host, 'reason': reason}))

    def describe(self, first: dict) -> str:
        """The sentence for what is in the store."""
        return f'rank {first["rank"]} on {first["host"]} died first ({first["reason"]})'

    def failed(self, error: BaseException) -> None:
        """Tell the others that this rank ends with an error of its own."""
        try:
            text = str(error).strip().splitlines() or ['']
            self.report(self.rank, f'{type(error).__name__}: {text[0][:200]}')
        except Exception:  # the store is gone, too: the others see that
            pass

    def wait_for_sentence(self, seconds: float = 20.0) -> str | None:
        """What ended the run, after a failed collective call; None when every rank is alive."""
        try:
            self.store.set(TROUBLE, '1')
        except Exception:  # see `run`
            pass
        end = time.monotonic() + seconds
        while self.sentence is None and time.monotonic() < end:
            time.sleep(0.1)
        return self.sentence

    def end(self) -> None:
        """Say what ended the run, and exit at once."""
        print(f'error: rank {self.rank} on {socket.gethostname()} stops: {self.sentence}{self.remedy}',
              file=sys.stderr, flush=True)
        os._exit(1)

    def close(self) -> None:
        """The run has ended well, on all ranks; nothing is to be done a second time."""
        if not self.closed:
            dist.barrier()
            self.closed = True


def watch_ranks(remedy: str = '') -> None:
    """Start watching, once in each rank; ``remedy`` ends the line of what happened."""
    global _watch
    if _watch is None and dist.is_initialized() and dist.get_world_size() > 1:
        _watch = RankWatch(dist.get_rank(), dist.get_world_size(), remedy)
        _watch.start()


def current_watch() -> RankWatch | None:
    """That of this process; None with a single process, or before the processes have met."""
    return _watch


def is_lost_connection(error: BaseException) -> bool:
    """Whether a collective call failed because of another rank."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(word in text for word in (
        'Connection closed by peer', 'Connection reset by peer', 'Broken pipe', 'gloo', 'NCCL', 'Timed out'))


class StopTogether:
    """Whether any rank was asked to stop, known to all of them after the same iteration.

    The answer to one iteration's question is read after the next, so that nobody waits for it.
    """

    def __init__(self):
        self.group = dist.new_group(backend='gloo') if dist.is_initialized() and dist.get_world_size() > 1 else None
        self.pending = None

    def __call__(self, asked: bool) -> bool:
        if self.group is None:
            return asked
        answer = False
        if self.pending is not None:
            work, flag = self.pending
            work.wait()
            answer = bool(flag.item())
        flag = torch.tensor([int(asked)])
        self.pending = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.group, async_op=True), flag
        return answer

    def wait_for_all(self) -> None:
        """Return when every rank is here."""
        if self.group is not None:
            dist.barrier(self.group)
