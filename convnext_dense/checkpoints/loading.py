"""Loading weights into a backbone, a detector or a segmentor: everything that must fit does, or nothing is touched."""
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..mm.fallbacks import print_log, unwrap_model
from .classes import carry_over, class_dependent, classes_of
from .formats import FORMATS, OFFICIAL, Source, detect, dims_of, recognise
from .reading import find_state_dict, read_checkpoint
from .report import Mismatch, explain, grouped

_STAGE_ROWS = [row.ours for row in OFFICIAL if row.ours is not None and row.ours.text.startswith(('stages', 'downs'))]
_OUTPUT_NORM = next(row.ours for row in OFFICIAL if row.ours is not None and row.ours.text == 'norm{s}.{p}')


def load_checkpoint(model: nn.Module, path: str | os.PathLike, prefix: str | None = None,
                    complete: bool = False) -> dict:
    """Load published or own weights into a model; their format is recognised.

    Every backbone parameter that the file's format can supply must be there with the right shape. Expected to stay
    as initialised: output norms that the file does not have, heads of another task, and, when the number of
    classes differs, exactly the layers that depend on it. One log line says what was fresh and what was dropped.

    Args:
        model: our backbone, or a detector or segmentor with it.
        path: whatever `read_checkpoint` accepts.
        prefix: take only the backbone under this prefix of the file; not needed unless a file holds several.
        complete: nothing may stay as initialised (evaluation).

    Returns:
        The checkpoint as read, with ``state_dict`` in the model's own names.

    Raises:
        UserError: as `read_checkpoint`, or the weights do not fit; the model is then unchanged.
    """
    checkpoint = fit_checkpoint(model, read_checkpoint(path), os.fspath(path), prefix, complete)
    unwrap_model(model).load_state_dict(checkpoint['state_dict'])
    return checkpoint


def fit_checkpoint(model: nn.Module, checkpoint: Mapping, name: str, prefix: str | None = None,
                   complete: bool = False, classes: Sequence[str] = ()) -> dict:
    """The checkpoint with a ``state_dict`` that has exactly the model's names and shapes; the model is not touched.

    What stays as initialised has the model's present values; in class-dependent layers, classes that the file has
    under the same name keep its weights. Arguments and errors as for `load_checkpoint`.

    Args:
        classes: names of the model's classes, where they are known.
    """
    target = unwrap_model(model).state_dict()
    own = recognise(target, type(model).__name__)
    if own.format is not FORMATS[0]:
        raise UserError(f'{type(model).__name__} has a ConvNeXt with {own.format.name} names: only models with '
                        'convnext_dense.ConvNeXt as their backbone can be loaded here')
    source = recognise(find_state_dict(checkpoint, name), name, prefix)
    fit = Fit()
    match_backbone(source, own, fit)
    match_heads(unwrap_model(model), source, own, fit)
    if complete:
        fit.mismatch.missing += fit.fresh + [key for key in target if key.rpartition('.')[0] in fit.remapped]
    their_classes = classes_of(checkpoint)
    if fit.classes == (len(their_classes), len(classes)):
        fit.shared_classes = [each for each in classes if each in their_classes]
        heads = {own.outer + key: tensor for key, tensor in source.heads.items()}
        fit.matched |= {key: carry_over(heads[key], target[key], their_classes, classes) for key in heads
                        if key.rpartition('.')[0] in fit.remapped}
    check_finite(fit.matched, name)
    if fit.mismatch:
        raise UserError(explain(name, source, own, fit.mismatch, complete))
    log_line(name, source, len(target), fit)
    return {**checkpoint, 'state_dict': {**target, **fit.matched}}


@dataclass
class Fit:
    """What comparing a file with a model found; all names are the model's.

    Attributes:
        matched: name -> tensor to load.
        fresh: names that stay as initialised, as expected.
        dropped: kind of what the file has and the model has no use for -> count.
        mismatch: what is wrong.
        remapped: layers that stay as initialised since the number of classes differs.
        classes: the numbers of classes of file and model, if they differ.
        shared_classes: names of those whose weights are kept all the same.
    """

    matched: dict[str, Tensor] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)
    mismatch: Mismatch = field(default_factory=Mismatch)
    remapped: list[str] = field(default_factory=list)
    classes: tuple[int, int] | None = None
    shared_classes: list[str] = field(default_factory=list)


def match_backbone(source: Source, own: Source, fit: Fit) -> None:
    """Compare the backbones of a file and a model, in official names."""
    stages = len(dims_of(own.backbone)[0])
    fit.mismatch.unexpected += source.unexpected
    fit.fresh += own.dropped  # of a model that is neither detector nor segmentor
    if source.dropped:
        fit.dropped[source.format.dropped] += len(source.dropped)
    for key, tensor in source.backbone.items():
        if key in own.backbone:
            compare(own.prefix + key, tensor, own.backbone[key], fit.matched, fit.mismatch.misshaped)
        elif key.startswith(('norm.', 'head.')):
            fit.dropped['classifier norm and head'] += 1
        elif stage_of(key) is not None and stage_of(key) >= stages:
            fit.dropped[f'stages after the last one of the model ({stages})'] += 1
        elif _OUTPUT_NORM.match(key):
            fit.dropped['output norms that the model does not have'] += 1
        else:
            fit.mismatch.unexpected.append(key)
    norms = {values['s'] for key in source.backbone if (values := _OUTPUT_NORM.match(key))}
    whole = bool(units(source) & units(own))  # the output norms of a whole model belong to it
    for key in (key for key in own.backbone if key not in source.backbone):
        values = _OUTPUT_NORM.match(key)
        supplied = whole or values is None or values['s'] in norms
        (fit.mismatch.missing if supplied else fit.fresh).append(own.prefix + key)


def match_heads(model: nn.Module, source: Source, own: Source, fit: Fit) -> None:
    """Compare what is around the backbones; units that only one side has are of another task."""
    shared, misshaped = units(source) & units(own), {}
    for key, tensor in source.heads.items():
        if unit(key) not in shared:
            fit.dropped['heads of another task'] += 1
        elif key not in own.heads:
            fit.mismatch.unexpected.append(own.outer + key)
        else:
            compare(own.outer + key, tensor, own.heads[key], fit.matched, misshaped)
    for key in own.heads:
        if unit(key) not in shared:
            fit.fresh.append(own.outer + key)
        elif key not in source.heads and not key.endswith('num_batches_tracked'):
            fit.mismatch.missing.append(own.outer + key)
    fit.remapped, fit.classes = class_dependent(model, misshaped)
    fit.mismatch.misshaped |= {key: shapes for key, shapes in misshaped.items()
                               if key.rpartition('.')[0] not in fit.remapped}


def compare(key: str, theirs: Tensor, ours: Tensor, matched: dict[str, Tensor], misshaped: dict[str, tuple]) -> None:
    """File ``theirs`` under ``matched``, or both shapes under ``misshaped``."""
    if theirs.shape == ours.shape:
        matched[key] = theirs
    else:
        misshaped[key] = (tuple(theirs.shape), tuple(ours.shape))


def has_our_backbone(model: nn.Module) -> bool:
    """Whether a model holds exactly one ConvNeXt with official names."""
    try:
        return detect(unwrap_model(model).state_dict(), 'the model')[0] is FORMATS[0]
    except UserError:
        return False


def units(source: Source) -> set[str]:
    """The parts around a backbone, see `unit`."""
    return {unit(key) for key in source.heads}


def unit(key: str) -> str:
    """The part of a detector or segmentor that a parameter belongs to: ``neck``, ``roi_head.mask_head``, ..."""
    parts = key.split('.')
    return '.'.join(parts[:2]) if parts[0] == 'roi_head' else parts[0]


def stage_of(key: str) -> int | None:
    """Stage of a block's or downsampling layer's parameter, by its official name."""
    return next((values['s'] for row in _STAGE_ROWS if (values := row.match(key))), None)


def check_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise UserError if a tensor holds NaN or infinity."""
    bad = [key for key, tensor in tensors.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise UserError(f'{name} has NaN or infinite values in {len(bad)} of {len(tensors)} parameters '
                        f'({grouped(bad)}): the run that wrote it had diverged; take an earlier checkpoint')


def log_line(name: str, source: Source, total: int, fit: Fit) -> None:
    """Say in one line what was loaded, what stayed as initialised, and what of the file was not used."""
    depths, dims, version = dims_of(source.backbone)
    parts = [f'{name}: {source.format.name} format, ConvNeXt {version}, depths {depths}, channels {dims}; '
             f'{len(fit.matched)} of {total} tensors loaded']
    if fit.fresh:
        parts.append(f'{len(fit.fresh)} fresh ({grouped(fit.fresh)})')
    if fit.remapped:
        parts.append(f'reinitialised for {fit.classes[1]} classes instead of {fit.classes[0]}: '
                     f'{", ".join(fit.remapped)}')
    if fit.shared_classes:
        parts.append(f'{len(fit.shared_classes)} of the same name keep theirs ({", ".join(fit.shared_classes[:8])})')
    if fit.dropped:
        parts.append('dropped ' + ', '.join(f'{count} ({kind})' for kind, count in fit.dropped.items()))
    print_log('; '.join(parts), logger='current', level=logging.WARNING if fit.remapped else logging.INFO)
