"""Which layers of a model depend on its number of classes, told from shapes, not from layer names."""
from collections.abc import Mapping

from torch import nn


def class_dependent(model: nn.Module, misshaped: Mapping[str, tuple]) -> tuple[list[str], tuple[int, int] | None]:
    """The layers whose shapes differ only because file and model have different numbers of classes.

    A layer of a head with C classes may have k * C or k * (C + 1) outputs (classification, with background; boxes;
    masks). If one number of classes of the file explains every such layer, these are the class-dependent ones.

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
