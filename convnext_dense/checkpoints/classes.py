"""Layers that depend on the number of classes, found by their shapes and not by their names."""
from collections.abc import Mapping, Sequence

from torch import Tensor, nn


def class_dependent(model: nn.Module, misshaped: Mapping[str, tuple]) -> tuple[list[str], tuple[int, int] | None]:
    """The layers whose shapes differ only because file and model have different numbers of classes.

    A layer of a head with C classes may have k * C or k * (C + 1) outputs (classification, with background; boxes;
    masks). If one number of classes of the file explains every such layer, these are the class-dependent layers.

    Args:
        model: detector or segmentor.
        misshaped: parameter name in the model -> (shape in the file, shape in the model).

    Returns:
        Names of the layers, and (classes of the file, classes of the model); empty and None if there is no such
        explanation.
    """
    candidates, layers, own = None, [], None
    for key, (theirs, ours) in misshaped.items():
        layer = key.rpartition('.')[0]
        classes = _classes_of_head(model, layer)
        if classes is None or not ours or len(theirs) != len(ours) or theirs[1:] != ours[1:]:
            return [], None
        possible = {count for background in (0, 1) if ours[0] % (classes + background) == 0
                    for count in [_solve(theirs[0], ours[0] // (classes + background), background)]
                    if count is not None}
        candidates = possible if candidates is None else candidates & possible
        own = classes
        if layer not in layers:
            layers.append(layer)
    if not candidates:
        return [], None
    return layers, (max(candidates), own)


def carry_over(theirs: Tensor, ours: Tensor, their_classes: Sequence[str], own_classes: Sequence[str]) -> Tensor:
    """A class-dependent parameter with the file's values for every class that both have, and for the background.

    Names are compared as `plain_name` gives them.

    Args:
        theirs: parameter of the file; its first dimension is k times its classes, or its classes and a background.
        ours: the same parameter of the model, as initialised.
    """
    their_classes, own_classes = ([plain_name(each) for each in names] for names in (their_classes, own_classes))
    merged = ours.clone()
    for background in (0, 1):
        rows, rest = divmod(len(ours), len(own_classes) + background)
        if rest or len(theirs) != rows * (len(their_classes) + background):
            continue
        places = {name: index for index, name in enumerate(their_classes)}
        pairs = [(places[name], index) for index, name in enumerate(own_classes) if name in places]
        if background:
            pairs.append((len(their_classes), len(own_classes)))  # the last one, as in mmdet
        for source, target in pairs:
            merged[target * rows:(target + 1) * rows] = theirs[source * rows:(source + 1) * rows]
        break
    return merged


def classes_of(checkpoint: Mapping) -> tuple[str, ...]:
    """Class names that a detector's or segmentor's file records (mmengine's or mmdet 2's way), or none."""
    meta = meta_of(checkpoint)
    dataset_meta = meta.get('dataset_meta')
    names = (dataset_meta.get('classes') if isinstance(dataset_meta, Mapping) else None) or meta.get('CLASSES')
    names = (names,) if isinstance(names, str) else names
    known = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(names) if known else ()


def plain_name(name: str) -> str:
    """A class name as it is compared: without case, and with spaces for underscores and hyphens."""
    return ' '.join(str(name).casefold().replace('_', ' ').replace('-', ' ').split())


def meta_of(checkpoint: Mapping) -> Mapping:
    """The record that a run's checkpoint keeps beside its weights; empty where there is none."""
    meta = checkpoint.get('meta')
    return meta if isinstance(meta, Mapping) else {}


def _solve(outputs: int, factor: int, background: int) -> int | None:
    count, remainder = divmod(outputs, factor)
    return count - background if not remainder and count > background else None


def _classes_of_head(model: nn.Module, layer: str) -> int | None:
    """``num_classes`` of the innermost module around a layer that has it."""
    parts = layer.split('.')
    for end in range(len(parts), 0, -1):
        count = getattr(model.get_submodule('.'.join(parts[:end])), 'num_classes', None)
        if isinstance(count, int):
            return count
    return None
