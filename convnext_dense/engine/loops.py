"""mmengine's two training loops, which continue anywhere as if they had never stopped."""
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, find_latest_checkpoint

from ..checkpoints import read_checkpoint
from ..errors import UserError
from .random_state import seed_generators
from .samples import STEP, BatchPlan, StepBatchSampler, plan_batches

RESUMABLE = {'EpochBasedTrainLoop': 'ResumableEpochLoop', 'IterBasedTrainLoop': 'ResumableIterLoop'}


class _Steps:
    """What the loops share: an iteration is one or several forward passes, each with random numbers of its own.

    Attributes:
        in_epoch: iterations done in this epoch; of an iteration-based loop, in the run.
    """

    @property
    def batches(self) -> StepBatchSampler:
        return self.dataloader.batch_sampler

    def train_step(self, data_batch: dict) -> dict:
        """Train on the batch of an iteration; returns the mean of the passes' losses."""
        runner, plan = self.runner, self.batches.plan
        outputs = []
        for number, part in enumerate(split(data_batch, plan.size, plan.passes)):
            seed_generators(self.batches.seed, STEP, self._iter, number * runner.world_size + runner.rank, gpu=True)
            outputs.append(runner.model.train_step(part, optim_wrapper=runner.optim_wrapper))
        return outputs[0] if len(outputs) == 1 else {
            name: torch.stack([torch.as_tensor(output[name]).detach() for output in outputs]).float().mean()
            for name in outputs[0]}

    def count_passes(self) -> None:
        """Tell the optimizer's wrapper, which counts passes, where the loop is."""
        passes, wrapper = self.batches.plan.passes, self.runner.optim_wrapper
        if passes > 1:
            wrapper.initialize_count_status(self.runner.model, self._iter * passes, self._max_iters * passes)


@LOOPS.register_module()
class ResumableEpochLoop(_Steps, EpochBasedTrainLoop):
    """mmengine's EpochBasedTrainLoop over a `StepBatchSampler`.

    Args:
        done: iterations of the first epoch that are not trained again.
        **options: as for mmengine's.
    """

    def __init__(self, runner, dataloader, done: int = 0, **options):
        super().__init__(runner, dataloader, **options)
        self.in_epoch = done

    def run(self):
        self.count_passes()
        return super().run()

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.batches.begin(self._epoch, self.in_epoch)
        for index, data_batch in enumerate(self.dataloader, self.in_epoch):
            self.run_iter(index, data_batch)
        self.in_epoch = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: dict) -> None:
        self.runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        outputs = self.train_step(data_batch)
        self.in_epoch += 1
        self.runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def is_validation_due(self) -> bool:
        """Whether an uninterrupted run validates what has been trained so far."""
        self._decide_current_val_interval()
        return self.runner.val_loop is not None and not self.in_epoch and self._epoch >= max(1, self.val_begin) and (
            self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs)


@LOOPS.register_module()
class ResumableIterLoop(_Steps, IterBasedTrainLoop):
    """mmengine's IterBasedTrainLoop over a `StepBatchSampler`.

    Args:
        done: iterations that are not trained again.
        **options: as for mmengine's.
    """

    def __init__(self, runner, dataloader, done: int = 0, **options):
        loader = runner.build_dataloader(dataloader, seed=runner.seed) if isinstance(dataloader, dict) else dataloader
        self.in_epoch = done
        self.left_out = loader.batch_sampler.begin_run(done)  # before mmengine's loop starts the workers
        super().__init__(runner, loader, **options)

    def run(self):
        runner = self.runner
        self.dataloader_iterator = self.endless(self.dataloader_iterator)
        self.count_passes()
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            if self.is_validation_due():
                runner.val_loop.run()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def endless(self, started) -> Iterator[dict]:
        """The batches of the iterations that are left; where the data end, another pass begins.

        Args:
            started: mmengine's iterator, whose workers load the first batches already.
        """
        batches, done = self.batches, self.left_out
        yield from getattr(started, '_iterator', None) or self.dataloader
        while True:
            if batches.passed == 0:
                raise UserError('train_dataloader has no batch: the data set has fewer images than one iteration needs '
                                '(drop_last drops the rest); use smaller batches')
            done = max(0, done - batches.passed)
            batches.begin(batches.epoch + 1, done)
            yield from self.dataloader

    def run_iter(self, data_batch: dict) -> None:
        self.runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        outputs = self.train_step(data_batch)
        self.in_epoch += 1
        self.runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def is_validation_due(self) -> bool:
        """Whether an uninterrupted run validates what has been trained so far."""
        self._decide_current_val_interval()
        return self.runner.val_loop is not None and self._iter >= max(1, self.val_begin) and (
            self._iter % self.val_interval == 0 or self._iter == self._max_iters)


def split(batch, size: int, passes: int) -> list:
    """The batches of ``size`` samples in a batch of several passes."""
    if passes == 1:
        return [batch]
    if isinstance(batch, dict):
        parts = {name: split(value, size, passes) for name, value in batch.items()}
        return [{name: values[number] for name, values in parts.items()} for number in range(passes)]
    return [batch[number * size:(number + 1) * size] for number in range(passes)]


def position(runner) -> dict:
    """Where a run is in its data, for a checkpoint's meta."""
    loop = runner.train_loop
    if not isinstance(loop, _Steps):
        return {}
    plan = loop.batches.plan
    return dict(done_in_epoch=loop.in_epoch, images_per_iteration=plan.images, processes=plan.processes)


def resumed_meta(runner) -> dict:
    """The meta of the checkpoint from which a runner is going to resume; empty when it is not."""
    file = runner._resume and (runner._load_from or find_latest_checkpoint(runner.work_dir))
    meta = read_checkpoint(file, mmap=True).get('meta') if file and Path(file).is_file() else None
    return meta if isinstance(meta, dict) else {}


def resumable(loop: dict, loader: dict, meta: dict, seed: int, rank: int, processes: int
              ) -> tuple[dict, dict, BatchPlan | None]:
    """The configs of mmengine's loops and of their data loader, changed to continue at a checkpoint's position.

    Args:
        loop: ``train_cfg``; one that names another loop is returned as it is.
        loader: ``train_dataloader``.
        meta: of the checkpoint (`position`), empty at the beginning.
        seed: of a new run.

    Returns:
        Loop, loader and how an iteration's images are shared.
    """
    kind = loop.get('type') or ('EpochBasedTrainLoop' if loop.get('by_epoch') else 'IterBasedTrainLoop')
    kind = RESUMABLE.get(getattr(kind, '__name__', kind))
    if kind is None:
        return loop, loader, None
    plan = _plan(loader['batch_size'], processes, meta)
    batches = dict(type='StepBatchSampler', plan=plan, batches=loader.get('batch_sampler'), rank=rank,
                   drop_last=loader.get('drop_last', False), seed=meta.get('seed') or seed)
    loader = {key: value for key, value in loader.items() if key != 'drop_last'} | {'batch_sampler': batches}
    done = meta.get('done_in_epoch') or (0 if kind == 'ResumableEpochLoop' else meta.get('iter', 0))
    done = done * meta.get('images_per_iteration', plan.images) // plan.images
    options = {key: value for key, value in loop.items() if key not in ('type', 'by_epoch')}
    return {**options, 'type': kind, 'done': done}, loader, plan


def _plan(batch_size: int, processes: int, meta: dict) -> BatchPlan:
    images, before = meta.get('images_per_iteration'), meta.get('processes', processes)
    if before == processes:
        plan = plan_batches(batch_size, processes)
        if images and images != plan.images:
            print_log(f'the checkpoint was trained with {images} images an iteration, this run has {plan.images}',
                      logger='current', level=logging.WARNING)
        return plan
    plan = plan_batches(batch_size, processes, images)
    print_log(f'the run continues on {processes} instead of {before} process(es), with {images} images an iteration as '
              f'before: {plan.passes} pass(es) of {plan.size} image(s) a process', logger='current')
    return plan
