"""Formats of ConvNeXt weights: one table of parameter names per library.

The right-hand names are the official ones, which are also ours: ``downsample_layers``, ``stages``, the output norms
``norm{s}`` of a dense backbone, and ``norm`` and ``head`` of a classifier. The weight in the first row of each
table, the depthwise convolution's, is what the format is recognised by. Rows are tried from the top.
Layouts (third column) are explained in templates.py.
"""
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..errors import UserError
from .templates import C11, GRN_111C, GRN_C, POINTWISE, SPARSE_CONV, SPARSE_DEPTHWISE, VECTOR, Row, Template, table

# facebookresearch/ConvNeXt and ConvNeXt-V2 (models/*.py and the dense ones), facebookresearch/dinov3, and ours
OFFICIAL = table(
    ('stages.{s}.{b}.dwconv.{p}', 'stages.{s}.{b}.dwconv.{p}'),
    ('stages.{s}.{b}.norm.{p}', 'stages.{s}.{b}.norm.{p}'),
    ('stages.{s}.{b}.pwconv1.{p}', 'stages.{s}.{b}.pwconv1.{p}'),
    ('stages.{s}.{b}.grn.gamma', 'stages.{s}.{b}.grn.gamma', GRN_111C),
    ('stages.{s}.{b}.grn.beta', 'stages.{s}.{b}.grn.beta', GRN_111C),
    ('stages.{s}.{b}.pwconv2.{p}', 'stages.{s}.{b}.pwconv2.{p}'),
    ('stages.{s}.{b}.gamma', 'stages.{s}.{b}.gamma'),
    ('downsample_layers.{s}.{j}.{p}', 'downsample_layers.{s}.{j}.{p}'),
    ('norm{s}.{p}', 'norm{s}.{p}'),
    ('norm.{p}', 'norm.{p}'),
    ('head.{p}', 'head.{p}'),
    ('norms.{s}.{p}', None),  # dinov3 keeps its final norm twice
    ('projectors.{rest}', None),  # distillation heads
)

# ConvNeXt-V2 self-supervised (models/convnextv2_sparse.py): MinkowskiEngine layers; the decoder is outside the backbone
FCMAE = table(
    ('stages.{s}.{b}.dwconv.kernel', 'stages.{s}.{b}.dwconv.weight', SPARSE_DEPTHWISE),
    ('stages.{s}.{b}.dwconv.bias', 'stages.{s}.{b}.dwconv.bias', VECTOR),
    ('stages.{s}.{b}.norm.ln.{p}', 'stages.{s}.{b}.norm.{p}'),
    ('stages.{s}.{b}.pwconv1.linear.{p}', 'stages.{s}.{b}.pwconv1.{p}'),
    ('stages.{s}.{b}.grn.gamma', 'stages.{s}.{b}.grn.gamma', GRN_111C),
    ('stages.{s}.{b}.grn.beta', 'stages.{s}.{b}.grn.beta', GRN_111C),
    ('stages.{s}.{b}.pwconv2.linear.{p}', 'stages.{s}.{b}.pwconv2.{p}'),
    ('downsample_layers.0.{j}.{p}', 'downsample_layers.0.{j}.{p}'),
    ('downsample_layers.{s}.0.ln.{p}', 'downsample_layers.{s}.0.{p}'),
    ('downsample_layers.{s}.1.kernel', 'downsample_layers.{s}.1.weight', SPARSE_CONV),
    ('downsample_layers.{s}.1.bias', 'downsample_layers.{s}.1.bias', VECTOR),
)
FCMAE_DECODER = table(('mask_token', None), ('proj.{p}', None), ('pred.{p}', None), ('decoder.{rest}', None))

# timm models/convnext.py: V1, V2 and DINOv3
TIMM = table(
    ('stages.{s}.blocks.{b}.conv_dw.{p}', 'stages.{s}.{b}.dwconv.{p}'),
    ('stages.{s}.blocks.{b}.norm.{p}', 'stages.{s}.{b}.norm.{p}'),
    ('stages.{s}.blocks.{b}.mlp.fc1.weight', 'stages.{s}.{b}.pwconv1.weight', POINTWISE),
    ('stages.{s}.blocks.{b}.mlp.fc1.bias', 'stages.{s}.{b}.pwconv1.bias'),
    ('stages.{s}.blocks.{b}.mlp.grn.weight', 'stages.{s}.{b}.grn.gamma', GRN_C),
    ('stages.{s}.blocks.{b}.mlp.grn.bias', 'stages.{s}.{b}.grn.beta', GRN_C),
    ('stages.{s}.blocks.{b}.mlp.fc2.weight', 'stages.{s}.{b}.pwconv2.weight', POINTWISE),
    ('stages.{s}.blocks.{b}.mlp.fc2.bias', 'stages.{s}.{b}.pwconv2.bias'),
    ('stages.{s}.blocks.{b}.gamma', 'stages.{s}.{b}.gamma'),
    ('stem.{j}.{p}', 'downsample_layers.0.{j}.{p}'),
    ('stages.{s}.downsample.{j}.{p}', 'downsample_layers.{s}.{j}.{p}'),
    ('head.norm.{p}', 'norm.{p}'),
    ('head.fc.{p}', 'head.{p}'),
    ('norm_pre.{p}', 'norm.{p}'),  # models with head_norm_first
    ('head.pre_logits.{rest}', None),  # CLIP's hidden layer before the head
)
# the same network with features_only=True
TIMM_FEATURES = tuple(
    Row(Template(row.theirs.text.replace('stages.{s}', 'stages_{s}').replace('stem.', 'stem_')), row.ours, row.layout)
    for row in TIMM)

# transformers models/convnext and convnextv2: Model, Backbone and ForImageClassification
TRANSFORMERS = table(
    ('encoder.stages.{s}.layers.{b}.dwconv.{p}', 'stages.{s}.{b}.dwconv.{p}'),
    ('encoder.stages.{s}.layers.{b}.layernorm.{p}', 'stages.{s}.{b}.norm.{p}'),
    ('encoder.stages.{s}.layers.{b}.pwconv1.{p}', 'stages.{s}.{b}.pwconv1.{p}'),
    ('encoder.stages.{s}.layers.{b}.grn.weight', 'stages.{s}.{b}.grn.gamma', GRN_111C),
    ('encoder.stages.{s}.layers.{b}.grn.bias', 'stages.{s}.{b}.grn.beta', GRN_111C),
    ('encoder.stages.{s}.layers.{b}.pwconv2.{p}', 'stages.{s}.{b}.pwconv2.{p}'),
    ('encoder.stages.{s}.layers.{b}.layer_scale_parameter', 'stages.{s}.{b}.gamma'),
    ('embeddings.patch_embeddings.{p}', 'downsample_layers.0.0.{p}'),
    ('embeddings.layernorm.{p}', 'downsample_layers.0.1.{p}'),
    ('encoder.stages.{s}.downsampling_layer.{j}.{p}', 'downsample_layers.{s}.{j}.{p}'),
    ('hidden_states_norms.stage{s+1}.{p}', 'norm{s}.{p}'),
    ('layernorm.{p}', 'norm.{p}'),
)
TRANSFORMERS_HEAD = table(('classifier.{p}', 'head.{p}'))

# transformers models/dinov3_convnext
TRANSFORMERS_DINOV3 = table(
    ('stages.{s}.layers.{b}.depthwise_conv.{p}', 'stages.{s}.{b}.dwconv.{p}'),
    ('stages.{s}.layers.{b}.layer_norm.{p}', 'stages.{s}.{b}.norm.{p}'),
    ('stages.{s}.layers.{b}.pointwise_conv1.{p}', 'stages.{s}.{b}.pwconv1.{p}'),
    ('stages.{s}.layers.{b}.pointwise_conv2.{p}', 'stages.{s}.{b}.pwconv2.{p}'),
    ('stages.{s}.layers.{b}.gamma', 'stages.{s}.{b}.gamma'),
    ('stages.{s}.downsample_layers.{j}.{p}', 'downsample_layers.{s}.{j}.{p}'),
    ('layer_norm.{p}', 'norm.{p}'),
)

# torchvision models/convnext.py (V1 only): features alternates stem or downsampling (even) and stage (odd)
TORCHVISION = table(
    ('features.{2s+1}.{b}.block.0.{p}', 'stages.{s}.{b}.dwconv.{p}'),
    ('features.{2s+1}.{b}.block.2.{p}', 'stages.{s}.{b}.norm.{p}'),
    ('features.{2s+1}.{b}.block.3.{p}', 'stages.{s}.{b}.pwconv1.{p}'),
    ('features.{2s+1}.{b}.block.5.{p}', 'stages.{s}.{b}.pwconv2.{p}'),
    ('features.{2s+1}.{b}.layer_scale', 'stages.{s}.{b}.gamma', C11),
    ('features.{2s}.{j}.{p}', 'downsample_layers.{s}.{j}.{p}'),
    ('classifier.0.{p}', 'norm.{p}'),
    ('classifier.2.{p}', 'head.{p}'),
)

# mmpretrain models/backbones/convnext.py, alone, in a classifier, or in an mmdet or mmseg model
MMPRETRAIN = table(
    ('stages.{s}.{b}.depthwise_conv.{p}', 'stages.{s}.{b}.dwconv.{p}'),
    ('stages.{s}.{b}.norm.{p}', 'stages.{s}.{b}.norm.{p}'),
    ('stages.{s}.{b}.pointwise_conv1.weight', 'stages.{s}.{b}.pwconv1.weight', POINTWISE),
    ('stages.{s}.{b}.pointwise_conv1.bias', 'stages.{s}.{b}.pwconv1.bias'),
    ('stages.{s}.{b}.grn.gamma', 'stages.{s}.{b}.grn.gamma', GRN_C),
    ('stages.{s}.{b}.grn.beta', 'stages.{s}.{b}.grn.beta', GRN_C),
    ('stages.{s}.{b}.pointwise_conv2.weight', 'stages.{s}.{b}.pwconv2.weight', POINTWISE),
    ('stages.{s}.{b}.pointwise_conv2.bias', 'stages.{s}.{b}.pwconv2.bias'),
    ('stages.{s}.{b}.gamma', 'stages.{s}.{b}.gamma'),
    ('downsample_layers.{s}.{j}.{p}', 'downsample_layers.{s}.{j}.{p}'),
    ('norm{s}.{p}', 'norm{s}.{p}'),
)
# in a classifier, norm3 comes after the pooling: it is the classifier's norm, not an output norm
MMPRETRAIN_CLASSIFIER = table(('norm3.{p}', 'norm.{p}'))
MMPRETRAIN_HEAD = table(('head.fc.{p}', 'head.{p}'))


class Format(NamedTuple):
    """How a library stores the weights of a ConvNeXt.

    Attributes:
        name: for messages.
        rows: the backbone's names; the weight of the first row recognises the format.
        outside: names beside the backbone that belong to the format (``classifier`` next to ``convnext.``).
        needs: a name that must be beside the backbone, for formats that share their rows with another.
        heads: whether a detector or segmentor around the backbone has mmdet's and mmseg's names.
        unused: what the rows without an official name are, for messages.
    """

    name: str
    rows: tuple[Row, ...]
    outside: tuple[Row, ...] = ()
    needs: str | None = None
    heads: bool = False
    unused: str = 'auxiliary layers'


FORMATS = (
    Format('official', OFFICIAL, heads=True),
    Format('FCMAE', FCMAE, FCMAE_DECODER, unused='FCMAE decoder'),
    Format('timm', TIMM),
    Format('timm features', TIMM_FEATURES),
    Format('transformers', TRANSFORMERS, TRANSFORMERS_HEAD),
    Format('transformers DINOv3', TRANSFORMERS_DINOV3, TRANSFORMERS_DINOV3[-1:]),
    Format('torchvision', TORCHVISION),
    Format('mmpretrain classifier', (*MMPRETRAIN[:1], *MMPRETRAIN_CLASSIFIER, *MMPRETRAIN[1:]), MMPRETRAIN_HEAD,
           needs='head.fc.weight'),
    Format('mmpretrain', MMPRETRAIN, heads=True),
)
_ANCHORS = tuple(Template(format.rows[0].theirs.text.replace('{p}', 'weight')) for format in FORMATS)


class Source(NamedTuple):
    """A state dict that was recognised.

    Attributes:
        format: see `Format`.
        prefix: of the backbone's names, empty or ending with a dot.
        backbone: official name -> tensor in the official shape, classifier norm and head included.
        heads: name without the outer prefix -> tensor, of the detector or segmentor around the backbone.
        unused: names that belong to the format and not to a backbone.
        unexpected: names under ``prefix`` that the format does not know.
    """

    format: Format
    prefix: str
    backbone: dict[str, Tensor]
    heads: dict[str, Tensor]
    unused: list[str]
    unexpected: list[str]

    @property
    def outer(self) -> str:
        """Prefix of the names of the heads."""
        return _outer(self.prefix)


def recognise(state: Mapping[str, Tensor], name: str, prefix: str | None = None) -> Source:
    """Find the ConvNeXt in a state dict, whatever format it has, and translate it to official names and shapes.

    Args:
        state: parameter name -> tensor.
        name: what to call the file in messages.
        prefix: look only at what is under this prefix (with or without its dot).

    Raises:
        UserError: there is no ConvNeXt in it, or more than one, or none under ``prefix``.
    """
    format, found = detect(state, name, prefix)
    outer = _outer(found)
    source = Source(format, found, {}, {}, [], [])
    for key, tensor in state.items():
        if key.startswith(found) and (row_values := _lookup(format.rows, key[len(found):])):
            row, values = row_values
        elif key.startswith(outer) and (row_values := _lookup(format.outside, key[len(outer):])):
            row, values = row_values
        elif key.startswith(found):
            source.unexpected.append(key)
            continue
        else:
            if key.startswith(outer) and format.heads and found.endswith('backbone.'):
                source.heads[key[len(outer):]] = tensor
            else:
                source.unused.append(key)
            continue
        if row.ours is None:
            source.unused.append(key)
        else:
            source.backbone[row.ours.fill(values)] = row.layout.read(tensor)
    return source


def detect(state: Mapping[str, Tensor], name: str, prefix: str | None = None) -> tuple[Format, str]:
    """(format, prefix of the backbone) of a state dict; arguments and errors as for `recognise`."""
    votes = Counter()
    for key in state:
        for i, format in enumerate(FORMATS):
            found = _ANCHORS[i].prefix_of(key)
            if found is not None and _has_beside(state, format, found):
                votes[-i, found] += 1
                break
    if prefix:
        wanted = prefix if prefix.endswith('.') else prefix + '.'
        here = Counter({vote: count for vote, count in votes.items() if vote[1] == wanted})
        if votes and not here:
            places = ' or '.join(repr(place) if place else 'no prefix' for _, place in votes)
            raise UserError(f'{name} has no ConvNeXt under the prefix {wanted!r}: its keys have {places}; '
                            'formats are recognised without a prefix, leave it out')
        votes = here
    if not votes:
        raise UserError(f'{name} holds no ConvNeXt: {_what_else(state)}')
    (best, count), *others = votes.most_common()
    equal = [place for (_, place), other in others if other == count]
    if equal:
        raise UserError(f'{name} holds {1 + len(equal)} ConvNeXts, under the prefixes '
                        f'{", ".join(map(repr, sorted([best[1], *equal])))}: choose one with prefix=...')
    return FORMATS[-best[0]], best[1]


def dims_of(backbone: Mapping[str, Tensor]) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """(depths, channels, 'V1' or 'V2') of a backbone with official names."""
    blocks, dims = {}, {}
    row = OFFICIAL[0].ours
    for key, tensor in backbone.items():
        if values := row.match(key):
            blocks.setdefault(values['s'], set()).add(int(values['b']))
            dims[values['s']] = tensor.shape[0] if tensor.dim() else 0
    version = 'V2' if any('.grn.' in key for key in backbone) else 'V1'
    stages = sorted(blocks)
    return tuple(max(blocks[s]) + 1 for s in stages), tuple(dims[s] for s in stages), version


def to_format(rows: tuple[Row, ...], key: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    """Name and tensor of an official parameter in another format, or None if that has none such."""
    for row in rows:
        if row.ours is not None and (values := row.ours.match(key)) is not None:
            return row.theirs.fill(values), row.layout.write(tensor)
    return None


def _lookup(rows: tuple[Row, ...], key: str) -> tuple[Row, dict] | None:
    for row in rows:
        if (values := row.theirs.match(key)) is not None:
            return row, values
    return None


def _has_beside(state: Mapping[str, Tensor], format: Format, prefix: str) -> bool:
    return format.needs is None or _outer(prefix) + format.needs in state


def _outer(prefix: str) -> str:
    return prefix[:prefix[:-1].rfind('.') + 1]


def _what_else(state: Mapping[str, Tensor]) -> str:
    keys = list(state)
    shown = ', '.join(keys[:3]) or 'nothing'
    if any(key.startswith('blocks.') and '.dwconv.' in key for key in keys):
        return 'an isotropic one has a single resolution and cannot feed a dense head; use a hierarchical one'
    if any(key.startswith(('backbone.', 'module.backbone.')) for key in keys):
        return f'it is a detector, segmentor or classifier with another backbone (its first keys are {shown})'
    return f'its first keys are {shown}; expected official, timm, transformers, torchvision or mmpretrain names'
