"""Many folders of stock configs, each in a process of its own: a crash or a hang of one does not end the others."""
import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Iterator
from importlib import import_module
from multiprocessing.connection import Connection, wait

import torch

from .trial import FAILS, Row, try_folder

# what a trial imports; in the parent, so that its forks have it
MODULES = ('mmdet.models', 'mmdet.testing', 'mmseg.models', 'mmseg.structures')


def sweep(names: list[tuple[str, str]], jobs: int, limit: float, device: str = 'cpu',
          amp: torch.dtype | None = None) -> Iterator[Row]:
    """The row of every folder, as each is done.

    Args:
        names: (package, folder of configs).
        jobs: how many run side by side.
        limit: seconds for each.
        device, amp: as of :func:`.trial.run`.
    """
    for module in MODULES:
        import_module(module)
    left, running = list(names), {}  # to start; (process, reader, start) by name
    while left or running:
        while left and len(running) < jobs:
            running[left[0]] = _start(*left[0], device, amp)
            left.pop(0)
        wait([reader for _, reader, _ in running.values()], timeout=1)
        for name, (process, reader, start) in list(running.items()):
            row = _result(name, process, reader, time.monotonic() - start > limit, limit)
            if row is not None:
                del running[name]
                yield row


def _start(package: str, folder: str, device: str, amp: torch.dtype | None) -> tuple:
    """(process, where its row comes out, when it started)."""
    context = multiprocessing.get_context('fork')
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(writer, package, folder, device, amp), daemon=True)
    process.start()
    writer.close()
    return process, reader, time.monotonic()


def _work(writer: Connection, package: str, folder: str, device: str, amp: torch.dtype | None) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # what stock models say about stock configs
    warnings.simplefilter('ignore')
    with open(os.devnull, 'w') as nowhere:
        os.dup2(nowhere.fileno(), 1)
        writer.send(try_folder(package, folder, device, amp))


def _result(name: tuple[str, str], process, reader: Connection, late: bool, limit: float) -> Row | None:
    """A process's row, or the one that says how it ended without one; None while it works."""
    row = None
    if reader.poll():
        try:
            row = reader.recv()
        except EOFError:
            process.join()
            row = Row(*name, outcome=FAILS, reason=f'its process ended with exit code {process.exitcode}')
    elif late:
        process.kill()
        row = Row(*name, outcome=FAILS, reason=f'not done after {limit:g} seconds')
    if row is not None:
        process.join()
        reader.close()
    return row
