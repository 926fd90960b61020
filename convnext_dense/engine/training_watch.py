"""A hook that stops a diverging run, and warns once about what keeps a model from learning."""
import logging
import math
from collections import deque
from pathlib import Path
from statistics import median

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from ..config.data_files import leaves
from ..errors import UserError
from ..mm.fallbacks import unwrap_model
from ..mm.transfer import HostCopy
from ..utils.anchors import best_ious

ANCHORS_LOOKED_AT = 200  # objects


@HOOKS.register_module()
class WatchTrainingHook(Hook):
    """Stop at a loss that is NaN, infinite or explodes; warn once about what keeps a model from learning.

    Stopping saves the batch as ``bad_batch_iter_N.pth`` (``bad_batch_iter_N_rankR.pth`` with several ranks) in the work
    dir, a dict with ``inputs`` and ``data_samples`` as the data loader returned them, and names its image files. With a
    loss scaler (fp16), whose first scales overflow by design, the loss must be bad for ``patience`` consecutive
    iterations. On a GPU the loss of the iteration before is looked at, so that the host need not wait for the latest.

    Warnings: no annotated object (or no labelled pixel) reaches the model, no anchor or proposal matches an object,
    fewer than half of the first objects have an anchor with an IoU of 0.5, the learning rate is zero, a part is frozen,
    a head's class count is not the data set's, nothing or one class only is predicted in a validation.

    Args:
        patience: consecutive iterations before a warning, and before an exploding loss stops the run.
        explosion: a loss explodes when it exceeds this multiple of the median of the last 100 finite losses.

    Raises:
        UserError: the loss is bad, or no parameter of the model is trained.
    """
    priority = 'NORMAL'  # before checkpoints are written (VERY_LOW), so that no broken model is saved

    def __init__(self, patience: int = 20, explosion: float = 100.0):
        self.patience = patience
        self.explosion = explosion
        self.losses: deque[float] = deque(maxlen=100)
        self.streaks: dict[str, int] = {}
        self.overlaps: list[float] | None = []  # IoU of objects with their best anchor, until there are enough
        self.said: set[str] = set()
        self.pending: deque[tuple[HostCopy, object, int]] = deque()  # losses, batch and number of steps to look at

    def before_train(self, runner) -> None:
        model = unwrap_model(runner.model)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        if not trained:
            raise UserError(f'{type(model).__name__}: every parameter is frozen (requires_grad is False), so nothing '
                            'can be trained; lower frozen_stages and remove what freezes the heads')
        for part, module in model.named_children():
            names = {f'{part}.{name}' for name, _ in module.named_parameters()}
            if names and part != 'backbone' and not names & trained:
                self.warn(f'frozen {part}', f'every parameter of {part} is frozen, so it keeps its initial values; '
                                            'remove requires_grad=False unless it is intended')
        self._compare_classes(runner, model)

    def _compare_classes(self, runner, model) -> None:
        """Every head that predicts the data set's classes should have as many outputs."""
        for leaf in leaves(runner.train_dataloader.dataset):
            classes = getattr(leaf, 'metainfo', {}).get('classes')
            for name, module in model.named_modules():
                count = getattr(module, 'num_classes', None)
                if classes and isinstance(count, int) and 'rpn' not in name and count != len(classes):
                    self.warn('classes', f'{name} predicts {count} classes, but {type(leaf).__name__} has '
                                         f'{len(classes)} ({", ".join(list(classes)[:5])}{", ..." * (len(classes) > 5)}'
                                         f'): set num_classes={len(classes)} in every head')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        losses = {key: value for key, value in (outputs or {}).items() if 'loss' in key}
        if losses:
            self.pending.append((HostCopy(losses), data_batch, runner.iter + 1))
            # a GPU is at the latest step still: the host looks at the one before
            while self.pending and (len(self.pending) > 1 or self.pending[0][0].is_ready()):
                self._check_step(runner, *self.pending.popleft())
        self.suspect('labels', _is_unlabelled(data_batch),
                     'the last {} batches had no annotation: inspect them with tools/browse_dataset.py, and check '
                     'filter_cfg, crops, classes and the ignore label')
        rates = [rate for group in runner.optim_wrapper.get_lr().values() for rate in group]
        self.suspect('rate', not any(rates) and runner.iter + 1 < runner.max_iters,
                     'the learning rate has been 0 for {} iterations, so nothing is learnt: check optimizer.lr and '
                     'param_scheduler')

    def after_train_epoch(self, runner) -> None:
        while self.pending:
            self._check_step(runner, *self.pending.popleft())

    def _check_step(self, runner, losses: HostCopy, data_batch, iteration: int) -> None:
        losses = losses.numbers()
        self._check_loss(runner, losses, data_batch, iteration)
        boxes = [value for key, value in losses.items() if 'bbox' in key]
        self.suspect('matched', bool(boxes) and not any(boxes) and not _is_unlabelled(data_batch),
                     'no anchor or proposal matches an annotated object (every box loss is exactly 0) in the last '
                     '{} batches: compare the anchor sizes with the objects after resizing')
        self._check_anchors(runner, data_batch)

    def _check_anchors(self, runner, data_batch) -> None:
        """Compare the first `ANCHORS_LOOKED_AT` objects with the anchors, in pixels of the network's input."""
        if self.overlaps is None:
            return
        model = unwrap_model(runner.model)
        generator = getattr(getattr(model, 'rpn_head', None) or getattr(model, 'bbox_head', None), 'prior_generator',
                            None)
        if not hasattr(generator, 'base_anchors') or not hasattr(generator, 'center_offset'):
            self.overlaps = None
            return
        levels = [(stride[0], (anchors[:, 2:] - anchors[:, :2]).cpu().numpy())
                  for stride, anchors in zip(generator.strides, generator.base_anchors, strict=True)]
        for image, sample in zip(data_batch['inputs'], _samples(data_batch), strict=True):
            boxes = sample.gt_instances.bboxes if 'gt_instances' in sample else ()
            if len(boxes):
                boxes = getattr(boxes, 'tensor', boxes).cpu().numpy()
                size = np.broadcast_to(np.array(image.shape[:-3:-1]), (len(boxes), 2))
                self.overlaps.extend(best_ious(boxes, size, levels, generator.center_offset))
        if len(self.overlaps) >= ANCHORS_LOOKED_AT:
            share = np.mean(np.array(self.overlaps) >= 0.5)
            self.overlaps = None
            if share < 0.5:
                self.warn('few matched', f'only {share:.0%} of the first objects have an anchor that overlaps them '
                                         'with an IoU of 0.5, so most are learnt badly: fit the anchors (rpn_head.'
                                         'anchor_generator.scales and ratios) or the image size to the objects, as '
                                         'tools/new_project.py does')

    def _check_loss(self, runner, losses: dict[str, float], data_batch, iteration: int) -> None:
        total = losses.get('loss', sum(losses.values()))
        finite = math.isfinite(total)
        usual = median(self.losses) if len(self.losses) >= 50 else math.inf
        exploding = finite and total > self.explosion * usual
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        overflows_by_design = scaler is not None and scaler.is_enabled()
        if finite and not exploding:
            self.losses.append(total)
        for name, bad, patience in (('nan', not finite, self.patience if overflows_by_design else 1),
                                    ('exploding', exploding, self.patience)):
            self.streaks[name] = self.streaks.get(name, 0) + 1 if bad else 0
            if self.streaks[name] >= patience:
                raise self._broken(runner, losses, total, usual, data_batch, iteration)

    def _broken(self, runner, losses, total: float, usual: float, data_batch, iteration: int) -> UserError:
        """Save the batch; returns the sentence to stop with."""
        rank = f'_rank{get_rank()}' if get_world_size() > 1 else ''  # several ranks may have a bad batch at once
        file = Path(runner.work_dir) / f'bad_batch_iter_{iteration}{rank}.pth'
        torch.save(data_batch, file)
        images = [str(getattr(sample, 'img_path', '?')) for sample in _samples(data_batch)]
        parts = ', '.join(f'{key} {value:.4g}' for key, value in losses.items() if key != 'loss')
        what = f'over {self.explosion:g} times the usual {usual:.4g}' if math.isfinite(total) else 'not finite'
        return UserError(
            f'iteration {iteration}: the loss is {total:.4g}, which is {what} ({parts}); the batch is saved as '
            f'{file} (images {", ".join(images)}): inspect these images and their annotations, then resume from the '
            'last checkpoint (--resume) with a lower learning rate, clip_grad, or --amp bf16 instead of fp16')

    def before_val_epoch(self, runner) -> None:
        self.labels: set[int] = set()  # that any pixel was predicted as
        self.objects = 0
        self.task = None

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        for sample in outputs or ():
            if 'pred_sem_seg' in sample:
                self.task = 'segmentation'
                self.labels.update(sample.pred_sem_seg.data.flatten().long().bincount().nonzero().flatten().tolist())
            elif 'pred_instances' in sample:
                self.task = 'detection'
                self.objects += len(sample.pred_instances)

    def after_val_epoch(self, runner, metrics=None) -> None:
        if self.task == 'segmentation' and len(self.labels) == 1:
            label = min(self.labels)
            classes = runner.val_dataloader.dataset.metainfo.get('classes') or {}
            name = classes[label] if label < len(classes) else label
            self.warn('one class', f'every pixel of the validation set is predicted as {name}: the model does not '
                                   'distinguish classes yet; normal early in training, later a sign of a learning rate '
                                   'that is too high or of wrong labels')
        elif self.task != 'segmentation' and self.objects == 0:
            self.warn('background', 'the model detects nothing in the validation set (every score is below the '
                                    "config's score_thr): normal early in training, later a sign of wrong labels or "
                                    'classes, or of an unsuitable learning rate')

    def suspect(self, name: str, holds: bool, sentence: str) -> None:
        """Warn once when a condition has held for ``patience`` consecutive iterations."""
        self.streaks[name] = self.streaks.get(name, 0) + 1 if holds else 0
        if self.streaks[name] >= self.patience:
            self.warn(name, sentence.format(self.patience))

    def warn(self, name: str, sentence: str) -> None:
        """Log a sentence once."""
        if name not in self.said:
            self.said.add(name)
            print_log(sentence, logger='current', level=logging.WARNING)


def _samples(data_batch) -> list:
    """The data samples of a batch as the data loader returns it; none when it has another form."""
    return list(data_batch.get('data_samples') or ()) if isinstance(data_batch, dict) else []


def _is_unlabelled(data_batch) -> bool:
    """Whether no sample of a batch has an object or a labelled pixel."""
    samples = _samples(data_batch)
    if not samples:
        return False
    if all('gt_sem_seg' in sample for sample in samples):
        return all(bool((sample.gt_sem_seg.data == 255).all()) for sample in samples)
    return all('gt_instances' in sample and len(sample.gt_instances) == 0 for sample in samples)
