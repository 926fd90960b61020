"""Loading weights into a backbone, a detector or a segmentor: everything that must fit does, or nothing is touched."""
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..mm.fallbacks import print_log, unwrap_model
from .classes import carry_over, class_dependent, classes_of, plain_name
from .formats import FORMATS, OFFICIAL, Source, detect, dims_of, recognise
from .reading import find_state_dict, read_checkpoint
from .report import Mismatch, explain, grouped

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # 8-bit floats need scales beside them
_STAGE_ROWS = [row.ours for row in OFFICIAL if row.ours is not None and row.ours.text.startswith(('stages', 'downs'))]
_OUTPUT_NORM = next(row.ours for row in OFFICIAL if row.ours is not None and row.ours.text == 'norm{s}.{p}')


def load_checkpoint(model: nn.Module, path: str | os.PathLike, prefix: str | None = None,
                    complete: bool = False, final_norm: bool = False) -> dict:
    """Load published or own weights into a model; their format is recognised.

    Every backbone parameter that the file's format can supply must be there with the right shape. Missing keys are
    allowed, and kept at initialisation, for output norms that the file does not have, heads of another task, and,
    when the number of classes differs, exactly the layers that depend on it. One log line lists missing and unused
    keys.

    Args:
        model: our backbone, or a detector or segmentor with it.
        path: whatever `read_checkpoint` accepts.
        prefix: take only the backbone under this prefix of the file; not needed unless a file holds several.
        complete: no missing keys are allowed (evaluation).
        final_norm: take the file's final norm, which dense recipes leave out, as the output norm of the last stage.
            For features that are used as they are: DINOv3 applies it to every position.

    Returns:
        The checkpoint as read, with ``state_dict`` in the model's own names.

    Raises:
        UserError: as `read_checkpoint`, or the weights do not fit; the model is then unchanged.
    """
    checkpoint = fit_checkpoint(model, read_checkpoint(path), os.fspath(path), prefix, complete,
                                final_norm=final_norm)
    unwrap_model(model).load_state_dict(checkpoint['state_dict'])
    return checkpoint


def fit_checkpoint(model: nn.Module, checkpoint: Mapping, name: str, prefix: str | None = None,
                   complete: bool = False, classes: Sequence[str] = (),
                   class_layers: Callable[[], Collection[str]] | None = None, final_norm: bool = False) -> dict:
    """The checkpoint with a ``state_dict`` that has exactly the model's names and shapes; the model is not touched.

    Missing keys have the model's present values. In class-dependent layers, classes that file and model have under
    the same name keep the file's weights, whatever their order and number. Other arguments and errors as for
    `load_checkpoint`.

    Args:
        classes: names of the model's classes, where they are known; compared with those that the file records.
            With ``complete`` they must be the same in the same order.
        class_layers: returns the names of the class-dependent layers; called where file and model have the same
            number of different classes, so that shapes do not show which layers these are.
    """
    target = unwrap_model(model).state_dict()
    own = recognise(target, type(model).__name__)
    if own.format is not FORMATS[0]:
        raise UserError(f'{type(model).__name__} has a ConvNeXt with {own.format.name} names: only models with '
                        'convnext_dense.ConvNeXt as their backbone can be loaded here')
    source = recognise(find_state_dict(checkpoint, name), name, prefix)
    if final_norm:
        use_final_norm(source, name)
    plan = LoadPlan()
    match_backbone(source, own, plan)
    match_heads(unwrap_model(model), source, own, plan)
    if complete:
        plan.mismatch.missing += plan.kept + [key for key in target if key.rpartition('.')[0] in plan.class_layers]
    if plan.mismatch:
        raise UserError(explain(name, source, own, plan.mismatch, complete))
    match_classes(plan, name, classes_of(checkpoint), classes, complete, class_layers)
    if plan.shared_classes:
        heads = {own.outer + key: tensor for key, tensor in source.heads.items()}
        plan.matched |= {key: carry_over(heads[key], target[key], classes_of(checkpoint), classes) for key in heads
                         if key.rpartition('.')[0] in plan.class_layers}
    check_finite(plan.matched, name)
    log_line(name, source, len(target), plan)
    return {**checkpoint, 'state_dict': {**target, **plan.matched}}


def use_final_norm(source: Source, name: str) -> None:
    """Rename a file's final norm to the output norm of its last stage."""
    norm = {key: tensor for key, tensor in source.backbone.items() if key.startswith('norm.')}
    if not norm:
        raise UserError(f'{name} has no final norm, which final_norm=True asks for: leave it out, or take a file of a '
                        'classifier or of DINOv3')
    last = len(dims_of(source.backbone)[0]) - 1
    for key, tensor in norm.items():
        del source.backbone[key]
        source.backbone[key.replace('norm.', f'norm{last}.')] = tensor


@dataclass
class LoadPlan:
    """What comparing a file with a model found; all names are the model's.

    Attributes:
        matched: name -> tensor to load.
        kept: missing keys that are expected, and kept at initialisation.
        unused: kind of keys that the model has no use for -> count.
        mismatch: what is wrong.
        class_layers: layers that depend on the classes, where file and model have different ones; kept at
            initialisation but for `shared_classes`.
        class_counts: the numbers of classes of file and model, where `class_layers` is not empty.
        shared_classes: names of the classes whose weights are loaded all the same.
        shares_heads: whether file and model have a head in common.
    """

    matched: dict[str, Tensor] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    unused: Counter = field(default_factory=Counter)
    mismatch: Mismatch = field(default_factory=Mismatch)
    class_layers: list[str] = field(default_factory=list)
    class_counts: tuple[int, int] | None = None
    shared_classes: list[str] = field(default_factory=list)
    shares_heads: bool = False


def match_backbone(source: Source, own: Source, plan: LoadPlan) -> None:
    """Compare the backbones of a file and a model, in official names."""
    stages = len(dims_of(own.backbone)[0])
    plan.mismatch.unexpected += source.unexpected
    plan.kept += own.unused  # of a model that is neither detector nor segmentor
    if source.unused:
        plan.unused[source.format.unused] += len(source.unused)
    for key, tensor in source.backbone.items():
        if key in own.backbone:
            compare(own.prefix + key, tensor, own.backbone[key], plan, plan.mismatch.misshaped)
        elif key.startswith(('norm.', 'head.')):
            plan.unused['classifier norm and head'] += 1
        elif stage_of(key) is not None and stage_of(key) >= stages:
            plan.unused[f'stages after the last one of the model ({stages})'] += 1
        elif _OUTPUT_NORM.match(key):
            plan.unused['output norms that the model does not have'] += 1
        else:
            plan.mismatch.unexpected.append(key)
    norms = {values['s'] for key in source.backbone if (values := _OUTPUT_NORM.match(key))}
    whole = bool(units(source) & units(own))  # the output norms of a whole model belong to it
    for key in (key for key in own.backbone if key not in source.backbone):
        values = _OUTPUT_NORM.match(key)
        supplied = whole or values is None or values['s'] in norms
        (plan.mismatch.missing if supplied else plan.kept).append(own.prefix + key)


def match_heads(model: nn.Module, source: Source, own: Source, plan: LoadPlan) -> None:
    """Compare what is around the backbones; units that only one side has are of another task."""
    shared, misshaped = units(source) & units(own), {}
    plan.shares_heads = bool(shared)
    for key, tensor in source.heads.items():
        if unit(key) not in shared:
            plan.unused['heads of another task'] += 1
        elif key not in own.heads:
            plan.mismatch.unexpected.append(own.outer + key)
        else:
            compare(own.outer + key, tensor, own.heads[key], plan, misshaped)
    for key in own.heads:
        if unit(key) not in shared:
            plan.kept.append(own.outer + key)
        elif key not in source.heads and not key.endswith('num_batches_tracked'):
            plan.mismatch.missing.append(own.outer + key)
    plan.class_layers, plan.class_counts = class_dependent(model, misshaped)
    plan.mismatch.misshaped |= {key: shapes for key, shapes in misshaped.items()
                                if key.rpartition('.')[0] not in plan.class_layers}


def match_classes(plan: LoadPlan, name: str, theirs: Sequence[str], ours: Sequence[str], complete: bool,
                  class_layers: Callable[[], Collection[str]] | None) -> None:
    """Compare class names, as far as both sides' are known; ``plan`` then says whose weights are loaded."""
    theirs, ours = ([plain_name(each) for each in names] for names in (theirs, ours))
    if plan.class_layers:
        if plan.class_counts == (len(theirs), len(ours)):
            plan.shared_classes = [each for each in ours if each in theirs]
        return
    if not plan.shares_heads or len(theirs) != len(ours) or theirs == ours:
        return
    index = next(index for index, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
    kind = 'the same classes in another order' if sorted(theirs) == sorted(ours) else 'other classes'
    found = f'{name} was trained for {kind}: class {index} is {theirs[index]!r} in the file and {ours[index]!r} in ' \
            'the data set'
    if complete:
        raise UserError(f'{found}; give the data set the names of the file in their order (metainfo.classes), or '
                        'train on the new ones with load_from')
    plan.class_layers = [layer for layer in (class_layers() if class_layers else ())
                         if any(key.rpartition('.')[0] == layer for key in plan.matched)]
    if not plan.class_layers:
        print_log(f'{found}; its layers for classes are loaded as they are, as a start', logger='current',
                  level=logging.WARNING)
        return
    plan.class_counts = len(theirs), len(ours)
    plan.shared_classes = [each for each in ours if each in theirs]
    for key in [key for key in plan.matched if key.rpartition('.')[0] in plan.class_layers]:
        del plan.matched[key]


def compare(key: str, theirs: Tensor, ours: Tensor, plan: LoadPlan, misshaped: dict[str, tuple]) -> None:
    """Enter ``theirs`` into ``plan.matched``, or both shapes into ``misshaped``, or both types as a mismatch."""
    if theirs.shape != ours.shape:
        misshaped[key] = (tuple(theirs.shape), tuple(ours.shape))
    elif theirs.dtype not in FLOATS and ours.dtype in FLOATS or theirs.is_complex():
        plan.mismatch.mistyped[key] = (theirs.dtype, ours.dtype)
    else:
        plan.matched[key] = theirs


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
    bad = [key for key, tensor in tensors.items() if tensor.dtype in FLOATS and not torch.isfinite(tensor).all()]
    if bad:
        raise UserError(f'{name} has NaN or infinite values in {len(bad)} of {len(tensors)} parameters '
                        f'({grouped(bad)}): the run that wrote it had diverged; take an earlier checkpoint')


def check_floats(backbone: Mapping[str, Tensor], name: str) -> None:
    """Raise UserError if a parameter of a backbone is not of a float type."""
    for key, tensor in backbone.items():
        if tensor.dtype not in FLOATS:
            raise UserError(f'{name}: {key} is of type {tensor.dtype}, expected floats of 16 bits or more: take the '
                            'float weights that it was made from')


def log_line(name: str, source: Source, total: int, plan: LoadPlan) -> None:
    """Log in one line what was loaded, which missing keys are kept at initialisation, and what was not used."""
    depths, dims, version = dims_of(source.backbone)
    parts = [f'{name}: {source.format.name} format, ConvNeXt {version}, depths {depths}, channels {dims}; '
             f'{len(plan.matched)} of {total} tensors loaded']
    if plan.kept:
        parts.append(f'{len(plan.kept)} missing keys, kept at initialisation ({grouped(plan.kept)})')
    if plan.class_layers:
        theirs, ours = plan.class_counts
        change = f'{ours} other classes' if theirs == ours else f'{ours} classes instead of {theirs}'
        parts.append(f'reinitialised for {change}: {", ".join(plan.class_layers)}')
    if plan.shared_classes:
        parts.append(f'{len(plan.shared_classes)} of the same name keep theirs ({", ".join(plan.shared_classes[:8])})')
    if plan.unused:
        parts.append('unused keys: ' + ', '.join(f'{count} ({kind})' for kind, count in plan.unused.items()))
    print_log('; '.join(parts), logger='current', level=logging.WARNING if plan.class_layers else logging.INFO)
