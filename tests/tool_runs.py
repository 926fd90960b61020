"""The one way to run a tool from a test: in this process, which saves seconds of imports, or in one of its own.

`run_tool` and `must_run` are for nearly everything. `launch` and `run_command` start a process, where that is the
point: signals, several ranks, memory of the process, a package that must not have been imported before.
"""
import contextlib
import io
import json
import logging
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mmengine.device.utils as device_utils
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.utils import ManagerMixin

from convnext_dense.checkpoints import read_checkpoint

ROOT = Path(__file__).resolve().parents[1]
TOOL_TESTS = ROOT / 'tests/tools'  # has the tiny configs and the hooks that some of them use
CONFIGS = {task: TOOL_TESTS / f'tiny_{task}.py' for task in ('det', 'seg')}
DATA = {'det': 'coco', 'seg': 'ade'}  # folder of each task in the shapes data
# the first and the last checkpoint of the tiny configs' runs, and their iterations
CHECKPOINTS = {'det': ('epoch_1.pth', 'epoch_2.pth'), 'seg': ('iter_4.pth', 'iter_8.pth')}
HALF, FULL = 4, 8
PROGRESS = re.compile(r'\s*$|(?!error: ).*(\d+/\d+|\[\d\d:\d\d)')  # what `utils.progress` writes, and empty lines


@dataclass
class ToolResult:
    """How a tool ended: exit status (0 for a normal return) and what it printed."""
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error line of a user's mistake; fails for any other outcome, such as a traceback."""
        lines = [line for line in self.err.replace('\r', '\n').splitlines() if not PROGRESS.match(line)]
        assert self.code == 2 and len(lines) == 1 and lines[0].startswith('error: '), \
            f'{self.code=}\n{self.out[-1500:]}\n{self.err}'
        return lines[0]


def run_tool(name: str, *args, cwd: Path = ROOT, program: str | None = None) -> ToolResult:
    """Run ``tools/NAME.py`` on the CPU in this process, as ``python tools/NAME.py ARGS`` would run in ``cwd``.

    Args:
        program: how the tool was called, ``sys.argv[0]``; default: by its file.
    """
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        forget_earlier_runs()
        deterministic = torch.are_deterministic_algorithms_enabled()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        patch.chdir(cwd)
        patch.setenv('CUDA_VISIBLE_DEVICES', '-1')
        patch.setattr(device_utils, 'DEVICE', 'cpu')
        patch.setattr(sys, 'argv', [program or str(ROOT / 'tools' / f'{name}.py'), *map(str, args)])
        try:
            runpy.run_path(str(ROOT / 'tools' / f'{name}.py'), run_name='__main__')
        except SystemExit as exit_:
            code = exit_.code or 0
        finally:
            torch.use_deterministic_algorithms(deterministic)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            forget_earlier_runs()
    return ToolResult(code, out.getvalue(), err.getvalue())


def forget_earlier_runs() -> None:
    """Drop mmengine's global loggers, message hubs and visualizers, as a new process would start without them."""
    kinds = [ManagerMixin]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
        if issubclass(kind, MMLogger):
            for logger in kind._instance_dict.values():
                for handler in logger.handlers:
                    if isinstance(handler, logging.FileHandler):
                        handler.close()
        kind._instance_dict.clear()


def must_run(name: str, *args, cwd: Path = ROOT) -> ToolResult:
    """As `run_tool`; the test fails with the output when the tool does."""
    finished = run_tool(name, *args, cwd=cwd)
    assert finished.code == 0, finished.out[-2000:] + finished.err[-4000:]
    return finished


def launch(command: list, log: Path, cwd: Path, **environment: str) -> subprocess.Popen:
    """Start a command in a process group of its own, output to ``log``, on the CPU, with this checkout importable."""
    path = os.pathsep.join(filter(None, [str(ROOT), environment.pop('PYTHONPATH', ''), os.environ.get('PYTHONPATH')]))
    return subprocess.Popen(
        [str(part) for part in command], stdout=log.open('w'), stderr=subprocess.STDOUT, cwd=cwd,
        start_new_session=True,
        env={**os.environ, 'PYTHONPATH': path, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1',
             'CUDA_VISIBLE_DEVICES': '-1', **environment})


def tool_command(name: str, *args) -> list:
    return [sys.executable, ROOT / 'tools' / f'{name}.py', *args]


def run_command(command: list, log: Path, cwd: Path, timeout: float = 1500, **environment: str) -> str:
    """Run a command to its end and return its output; the test fails with the output when the command does."""
    process = launch(command, log, cwd, **environment)
    try:
        code = process.wait(timeout)
    finally:
        kill(process)
    assert code == 0, f'exit status {code}:\n{log.read_text()[-6000:]}'
    return log.read_text()


def free_port() -> str:
    """A port for the processes of a distributed run to meet at."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


def wait_for(pattern: str, log: Path, process: subprocess.Popen, timeout: float = 900) -> re.Match:
    """Wait until ``pattern`` appears in a log."""
    end = time.monotonic() + timeout
    while True:
        ended = process.poll() is not None
        found = re.search(pattern, log.read_text())
        if found:
            return found
        assert not ended and time.monotonic() < end, \
            f'{pattern!r} did not appear ({process.poll()=}):\n{log.read_text()[-6000:]}'
        time.sleep(0.05)


def kill(process: subprocess.Popen) -> None:
    """End a process that `launch` started, and its children, at once (SIGKILL)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def iterations(log: str) -> list[tuple[int, int]]:
    """(epoch or 0, iteration) of every training line in a log."""
    lines = re.findall(r'(?:Epoch|Iter)\(train\)\s+(?:\[(\d+)\])?\[\s*(\d+)/\d+\]', log)
    return [(int(epoch or 0), int(iteration)) for epoch, iteration in lines]


def scalars(work_dir: Path) -> list[dict]:
    """The scalars of the newest run in a work dir, one dict a log line."""
    file = max(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for line in file.read_text().splitlines()]


def copy_data(source: Path, target: Path) -> Path:
    """A copy of a data folder that a test may damage."""
    return Path(shutil.copytree(source, target))


def differing(first: Path, second: Path, part: str = 'state_dict') -> list[str]:
    """Names of the tensors that differ in any bit between two checkpoints."""
    first, second = (read_checkpoint(file)[part] for file in (first, second))
    assert first.keys() == second.keys()
    return [key for key in first if not torch.equal(first[key], second[key])]
