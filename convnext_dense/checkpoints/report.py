"""The error message for weights that do not fit: what is wrong, by prefix, and the likely cause."""
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..architectures import ARCHITECTURES
from .formats import Source, dims_of


@dataclass
class Mismatch:
    """What does not fit.

    Attributes:
        missing, unexpected: names.
        misshaped: name -> (shape in the file, shape in the model).
        mistyped: name -> (dtype in the file, dtype in the model).
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: dict[str, tuple] = field(default_factory=dict)
    mistyped: dict[str, tuple] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshaped or self.mistyped)


def explain(name: str, source: Source, own: Source, mismatch: Mismatch, complete: bool) -> str:
    """The whole error message, likely cause first."""
    parts = []
    if mismatch.missing:
        parts.append(f'{len(mismatch.missing)} missing in the file ({grouped(mismatch.missing, True)})')
    if mismatch.unexpected:
        parts.append(f'{len(mismatch.unexpected)} unexpected in it ({grouped(mismatch.unexpected, True)})')
    if mismatch.misshaped:
        key, (theirs, ours) = next(iter(mismatch.misshaped.items()))
        parts.append(f'{len(mismatch.misshaped)} with another shape ({grouped(mismatch.misshaped, True)}; {key} is '
                     f'{theirs} in the file and {ours} in the model)')
    if mismatch.mistyped:
        key, (theirs, ours) = next(iter(mismatch.mistyped.items()))
        parts.append(f'{len(mismatch.mistyped)} with another type ({grouped(mismatch.mistyped, True)}; {key} is '
                     f'{theirs} in the file and {ours} in the model)')
    return f'{name} does not fit the model, which is unchanged: {likely_cause(source, own, mismatch, complete)}; ' \
           f'{"; ".join(parts)}'


def likely_cause(source: Source, own: Source, mismatch: Mismatch, complete: bool) -> str:
    """What most probably happened, and what to do."""
    (depths, dims, version), (own_depths, own_dims, own_version) = dims_of(source.backbone), dims_of(own.backbone)
    if version != own_version:
        wanted = 'True' if version == 'V2' else 'False'
        return f'the file is a ConvNeXt {version} ({size(depths, dims)}) and the model a {own_version} ' \
               f'({size(own_depths, own_dims)}): build the backbone with use_grn={wanted} or take {own_version} weights'
    if mismatch.mistyped:
        return 'the file holds numbers of another kind, as after quantisation: take the float weights it was made from'
    stages = min(len(depths), len(own_depths))
    if (depths[:stages], dims[:stages]) != (own_depths[:stages], own_dims[:stages]):
        return f'the file is a ConvNeXt of another size, {size(depths, dims)}, than the model, ' \
               f'{size(own_depths, own_dims)}: set arch, or take other weights'
    if len(depths) < len(own_depths):
        return f'the file has only the first {len(depths)} of the model\'s {len(own_depths)} stages: ' \
               'set out_indices as it was trained'
    layer_scale = [any(key.endswith('.gamma') and '.grn.' not in key for key in s.backbone) for s in (source, own)]
    if layer_scale[0] != layer_scale[1]:
        return f'the file has {"" if layer_scale[0] else "no "}layer scale (gamma) and the model ' \
               f'{"has it" if layer_scale[1] else "has none"}: set layer_scale_init_value'
    stem = 'downsample_layers.0.0.weight'
    if own.prefix + stem in mismatch.misshaped:
        return 'the stems take other inputs: in_channels or stem_patch_size differ, or the file has an overlapping stem'
    if complete and own.heads and not source.heads:
        return 'the file holds a backbone without the heads, which evaluation needs: give weights of the whole model'
    if not own.heads or any(key.startswith(own.prefix) for key in (*mismatch.missing, *mismatch.misshaped)):
        if mismatch.unexpected and not mismatch.missing and not mismatch.misshaped:
            return f'the file has layers under {source.prefix or "its top level"!r} that a ConvNeXt does not have'
        return 'the file is incomplete, or of a modified network'
    if complete and not mismatch.unexpected and not mismatch.misshaped:
        return 'evaluation needs every weight: the file is of another model, or of another number of classes'
    return 'the heads differ: take the config that the file was trained with, or load its backbone alone with ' \
           'init_cfg=dict(type=\'Pretrained\', checkpoint=...) on the backbone'


def size(depths: tuple[int, ...], dims: tuple[int, ...]) -> str:
    """``tiny: depths (3, 3, 9, 3), channels (96, 192, 384, 768)``, without the name where there is none."""
    name = next((f'{name}: ' for name, arch in ARCHITECTURES.items() if arch == (depths, dims)), '')
    return f'{name}depths {depths}, channels {dims}'


def grouped(keys: Iterable[str], deep: bool = False) -> str:
    """``stages.2: 54 as stages.2.9.gamma, norm0: 2 as norm0.weight``: counts by prefix, each with an example.

    A backbone's keys are grouped by stage; those of heads by head, or with ``deep`` by layer.
    """
    groups = {}
    for key in keys:
        parts = key.split('.')[:-1]
        stage = next((i for i, part in enumerate(parts) if part in ('stages', 'downsample_layers')), None)
        if stage is not None:
            end = stage + 2
        elif deep:
            end = len(parts)
        else:
            end = 2 if parts[:1] in (['roi_head'], ['backbone']) else 1
        groups.setdefault('.'.join(parts[:end]) or key, []).append(key)
    shown = [f'{prefix}: {len(group)}' + (f' as {group[0]}' if group[0] != prefix else '')
             for prefix, group in list(groups.items())[:8]]
    return ', '.join(shown) + (f', and {len(groups) - 8} more groups' if len(groups) > 8 else '')
