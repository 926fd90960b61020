"""Checkpoints that are written while training goes on."""
import copy
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import mmengine
import torch
from mmengine.model import is_model_wrapper

from ..errors import UserError
from ..optim.sharding import SharedTensor
from ..utils.files import atomic_write

# of every checkpoint of a run, wherever it is
RUN_META = ('cfg', 'seed', 'experiment_name', 'time', 'mmengine_version', 'dataset_meta')


class CheckpointWriter:
    """Writes checkpoints in a thread, from a copy in CPU memory: one at a time, and one copy at a time.

    The copy's memory is kept for the next checkpoint, since new pages take longer than what is copied into them. A file
    appears under its name when it is complete and on the disk. What fails in the thread is raised by the next call.

    Attributes:
        last: the copy of the last checkpoint, empty before there is one.
        seconds: of each checkpoint: its caller waited, it took to write.
    """

    def __init__(self):
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._jobs: list[Callable[[], None]] | None = None  # for the thread; None: it does nothing
        self._error: BaseException | None = None
        self._buffers: dict[tuple, torch.Tensor] = {}
        self.last: dict = {}
        self.seconds: list[tuple[float, float]] = []

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._jobs is not None

    def write(self, checkpoint: dict, path: Path) -> None:
        """Copy a checkpoint, and begin to write it; waits for the one before.

        Raises:
            UserError: a weight of the one before is not finite.
            OSError: it could not be written.
        """
        self.wait()
        start = time.perf_counter()
        self.last = self._copy(checkpoint, ())
        self.seconds.append((time.perf_counter() - start, float('nan')))
        self._begin(partial(self._write, self.last, path, start))

    def write_again(self, checkpoint: dict, path: Path) -> None:
        """Write what is made of `last`, after what is being written; nothing is copied, nobody waits."""
        self.check()
        self._add(partial(self._write, checkpoint, path)) or self._begin(partial(self._write, checkpoint, path))

    def after(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when what is being written is complete, in the thread; now, when nothing is."""
        self.check()
        if not self._add(callback):
            self.check()
            callback()

    def check(self) -> None:
        """Raise what went wrong in the thread."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until everything is written, and raise what went wrong."""
        self.join()
        self.check()

    def join(self) -> None:
        """Wait until everything is written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _add(self, job: Callable[[], None]) -> bool:
        """Let the thread do that as well; False when it does nothing."""
        with self._lock:
            if self._jobs is not None:
                self._jobs.append(job)
            return self._jobs is not None

    def _begin(self, job: Callable[[], None]) -> None:
        self.wait()
        self._jobs = [job]
        self._thread = threading.Thread(target=self._run, name='checkpoint')
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._jobs:
                        self._jobs = None
                        return
                    job = self._jobs.pop(0)
                job()
        except BaseException as error:
            with self._lock:
                self._error, self._jobs = error, None

    def _write(self, checkpoint: dict, path: Path, start: float | None = None) -> None:
        check_finite(checkpoint['state_dict'], path.name)
        with atomic_write(path, sync=True) as part:
            save(checkpoint, part)
        if start is not None:
            self.seconds[-1] = self.seconds[-1][0], time.perf_counter() - start

    def _copy(self, node, name: tuple):
        """A copy of nested containers; tensors go into the memory of the last copy."""
        if isinstance(node, SharedTensor):
            node = node.fetch()
        if isinstance(node, torch.Tensor):
            if node.layout != torch.strided or node.numel() == 0:
                return node.detach().to('cpu', copy=True)
            held = self._buffers.get(name)
            if held is None or held.shape != node.shape or held.dtype != node.dtype or held.stride() != node.stride():
                held = self._buffers[name] = torch.empty_like(node, device='cpu')
            return held.copy_(node.detach())
        if isinstance(node, dict):
            held = copy.copy(node)  # keeps the attribute _metadata of state dicts
            for key, value in node.items():
                held[key] = self._copy(value, (*name, key))
            return held
        if type(node) in (list, tuple):
            return type(node)(self._copy(value, (*name, number)) for number, value in enumerate(node))
        return copy.deepcopy(node)


def save(checkpoint: dict, path: Path) -> None:
    """torch.save; what the file system says is raised as it is.

    Raises:
        OSError: with the file's name, for example on a full disk, of which torch makes a RuntimeError.
    """
    written = None
    try:
        with path.open('wb') as file:
            written = _File(file)
            torch.save(checkpoint, written)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else written and written.error
        if cause is None:
            raise
        raise OSError(cause.errno, os.strerror(cause.errno), str(path)) from error


class _File:
    """A file that remembers why it could not be written."""

    def __init__(self, file):
        self._file, self.error = file, None

    def write(self, content) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def check_finite(state_dict: dict, filename: str) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        UserError: names the first.
    """
    for name, value in state_dict.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f'{filename} is not written, because {name} of the model has values that are not finite: '
                            'resume from the previous checkpoint (--resume) with a lower learning rate or clip_grad')


def validated_checkpoint(last: dict, hub: dict, meta: dict, save_optimizer: bool, save_param_scheduler: bool) -> dict:
    """A run's last checkpoint with what its validation, which ended later, has found.

    Args:
        last: `CheckpointWriter.last`, of the iteration that was validated.
        hub: the message hub's state now; of it only the metrics, and which checkpoints there are, are taken.
        meta, save_optimizer, save_param_scheduler: as for `run_checkpoint`.
    """
    found = {part: {key: value for key, value in values.items()
                    if key.startswith(('val/', 'best_', 'last_ckpt', 'keep_ckpt_ids'))} for part, values in hub.items()}
    dropped = ['optimizer'] * (not save_optimizer) + ['param_schedulers'] * (not save_param_scheduler)
    return {**{key: value for key, value in last.items() if key not in dropped},
            'meta': {**{key: value for key, value in last['meta'].items() if key in RUN_META}, **meta},
            'message_hub': {part: type(values)({**values, **found[part]})
                            for part, values in last['message_hub'].items()}}


def run_checkpoint(runner, meta: dict, save_optimizer: bool, save_param_scheduler: bool) -> dict:
    """What mmengine's Runner writes into a checkpoint, in the same format; tensors are the run's own, not copies."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    meta = {**meta, 'cfg': runner.cfg.pretty_text, 'seed': runner.seed, 'experiment_name': runner.experiment_name,
            'time': time.strftime('%Y%m%d_%H%M%S'), 'mmengine_version': mmengine.__version__}
    if hasattr(runner.train_dataloader.dataset, 'metainfo'):
        meta['dataset_meta'] = runner.train_dataloader.dataset.metainfo
    checkpoint = {'meta': meta, 'state_dict': model.state_dict(), 'message_hub': runner.message_hub.state_dict()}
    if save_optimizer:
        state = runner.optim_wrapper.state_dict()
        checkpoint['optimizer'] = runner.shards.complete(state) if runner.shards else state
    schedulers = runner.param_schedulers
    if save_param_scheduler and schedulers is not None:
        checkpoint['param_schedulers'] = \
            {name: [scheduler.state_dict() for scheduler in group] for name, group in schedulers.items()} \
            if isinstance(schedulers, dict) else [scheduler.state_dict() for scheduler in schedulers]
    runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)
    return checkpoint
