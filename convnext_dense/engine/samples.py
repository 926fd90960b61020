"""Which samples an iteration trains on, whatever the number of processes and workers, and their random numbers."""
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle, islice

from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, Sampler

from ..errors import UserError
from .random_state import seeded

SAMPLE, STEP = 0, 1  # what random numbers are drawn for: the second integer of a key


@dataclass(frozen=True)
class BatchPlan:
    """How the images of one iteration are shared.

    Args:
        processes: that train together.
        size: images of one forward pass of one process.
        passes: forward passes of one process in an iteration; their gradients are accumulated.
    """
    processes: int = 1
    size: int = 1
    passes: int = 1

    @property
    def images(self) -> int:
        """Images of one iteration, over all processes."""
        return self.processes * self.size * self.passes


def plan_batches(batch_size: int, processes: int, images: int | None = None) -> BatchPlan:
    """Share ``images`` (default: ``batch_size`` a process) among processes that load ``batch_size`` each.

    Fewer processes than before accumulate the gradients of several passes, more take a part of ``batch_size`` each.

    Raises:
        UserError: the number of processes cannot share them equally.
    """
    at_once = processes * batch_size
    images = images or at_once
    if images % at_once == 0:
        return BatchPlan(processes, batch_size, images // at_once)
    if images % processes == 0 and batch_size % (images // processes) == 0:
        return BatchPlan(processes, images // processes)
    raise UserError(f'the run that continues trains on {images} images an iteration, which {processes} process(es) '
                    f'cannot keep with train_dataloader.batch_size={batch_size}: expected a number of processes that '
                    f'divides {images}; use another number, or another batch size')


@DATA_SAMPLERS.register_module()
class StepBatchSampler(BatchSampler):
    """The samples of each iteration on this process, as (index, key) for `SeededItems`.

    mmengine's DefaultSampler and InfiniteSampler give one order of samples for all processes, which is that of one
    process; a batch sampler groups it; and iteration k takes the k-th ``plan.images`` samples of it, dealt out in
    batches of ``plan.size``. Samples and their random numbers depend on the seed and the position in that order only.
    An epoch's last, incomplete iteration is filled up with the epoch's first samples, unless one process without
    accumulation trains on what is left, as mmengine does. Any other sampler decides itself what each process gets.

    Args:
        sampler: of the config, built for this process.
        batch_size: images that ``batches`` groups.
        plan: how they are shared.
        batches: config of a batch sampler, or None.
        drop_last: drop an epoch's last, incomplete iteration.
        seed: of the run, the same on all processes.
        rank: of this process.
    """

    def __init__(self, sampler: Sampler, batch_size: int, plan: BatchPlan, batches: dict | None = None,
                 drop_last: bool = False, seed: int = 0, rank: int = 0):
        self.plan, self.drop_last, self.seed, self.rank = plan, drop_last, seed, rank
        self.sampler, self.is_common = common_order(sampler, seed)
        self.is_endless = isinstance(sampler, InfiniteSampler)
        self.batch_size = plan.size * plan.passes
        self.batches = BatchSampler(self.sampler, batch_size, drop_last) if batches is None else \
            DATA_SAMPLERS.build(batches, default_args=dict(sampler=self.sampler, batch_size=batch_size))
        self.begin(0, 0)

    def begin(self, epoch: int, done: int) -> None:
        """Let the next pass over the samples be that of ``epoch``, without its first ``done`` iterations."""
        self.epoch, self.done, self.passed = epoch, done, 0
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)
        if self.is_endless and self.is_common:
            self.sampler.indices = self.sampler._indices_of_rank()

    def begin_run(self, done: int) -> int:
        """As `begin` for a run that passes over the samples again and again; returns what is left of ``done``."""
        epoch, length = 0, len(self)
        if self.is_common and not self.is_endless and length:
            epoch, done = divmod(done, length)
        self.begin(epoch, done)
        return done

    @property
    def _shares(self) -> int:
        """Batches of ``plan.size`` that one iteration takes out of the order."""
        return self.plan.passes * (self.plan.processes if self.is_common else 1)

    def __len__(self) -> int:
        per_batch = max(1, getattr(self.batches, 'batch_size', self.plan.size) // self.plan.size)
        if self.is_endless:
            return len(self.batches)
        pieces = len(self.batches) * per_batch
        if per_batch > 1 and not self.drop_last:  # the last batch may have fewer parts
            pieces = -(-len(self.sampler) // self.plan.size)
        return pieces // self._shares if self.drop_last else -(-pieces // self._shares)

    def __iter__(self) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
        epoch, skipped, shares, size = self.epoch, self.done, self._shares, self.plan.size
        self.done = 0
        pieces = (batch[start:start + size] for batch in self.batches for start in range(0, len(batch), size))
        first, position = [], 0
        for iteration in count():
            step = list(islice(pieces, shares))
            samples = [index for piece in step for index in piece]
            first = first or samples
            incomplete = shares > 1 and len(samples) < shares * size
            self.passed = iteration  # of a whole pass when it ends
            if not samples or incomplete and self.drop_last:
                return
            if iteration >= skipped:
                if incomplete:
                    samples.extend(islice(cycle(first), shares * size - len(samples)))
                    step = [samples[start:start + size] for start in range(0, len(samples), size)]
                yield self._own(step, epoch, position)
            position += len(samples)

    def _own(self, step: list[list[int]], epoch: int, position: int) -> list[tuple[int, tuple[int, ...]]]:
        """This process's share of an iteration, each sample with the key of its random numbers."""
        number = count(position)
        rank = () if self.is_common else (self.rank,)
        keyed = [[(index, (self.seed, SAMPLE, epoch, next(number), *rank)) for index in piece] for piece in step]
        mine = keyed[self.rank::self.plan.processes] if self.is_common else keyed
        return [sample for piece in mine for sample in piece]


def common_order(sampler: Sampler, seed: int) -> tuple[Sampler, bool]:
    """The sampler as one process has it, and True; any but mmengine's as it is, and False."""
    if type(sampler) not in (DefaultSampler, InfiniteSampler):
        return sampler, False
    common = copy.copy(sampler)
    common.rank, common.world_size, common.seed = 0, 1, seed
    if type(sampler) is DefaultSampler:
        common.num_samples = common.total_size = len(sampler.dataset)
    return common, True


class SeededItems:
    """Loads samples, each with the random numbers of its key: torch calls this instead of ``dataset[index]``.

    A data set gets it as ``__getitems__``, in which torch's loaders pass a whole batch of indices.
    """

    def __init__(self, dataset):
        self.dataset = dataset

    def __call__(self, samples: list[tuple[int, tuple[int, ...]]]) -> list:
        items = []
        for index, key in samples:
            with seeded(*key):
                items.append(self.dataset[index])
        return items
