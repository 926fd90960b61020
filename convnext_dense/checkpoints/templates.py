"""Elements of the mapping tables in formats.py: names with placeholders, and tensor layouts.

A template is a parameter name with placeholders: ``{s}`` a stage (0 to 3), ``{b}`` a block, ``{j}`` a layer of the
stem or of a downsampling, ``{p}`` weight or bias, ``{rest}`` anything. ``{s+1}``, ``{2s}`` and ``{2s+1}`` are
for libraries that count stages in another way.
"""
import re
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

_STAGE = re.compile(r'(\d*)s(?:\+(\d+))?')
_NUMBER = '([0-9]{1,4})'
_PATTERNS = {'b': _NUMBER, 'j': _NUMBER, 'p': r'(weight|bias)', 'rest': r'(.+)'}


class Template:
    """A name with placeholders that can be matched against a key and filled in again."""

    def __init__(self, text: str):
        self.text = text
        self.places = []  # per placeholder: (its name, factor, offset)
        pattern = ''
        for i, part in enumerate(re.split(r'\{(.+?)\}', text)):
            if i % 2 == 0:
                pattern += re.escape(part)
            elif part in _PATTERNS:
                pattern += _PATTERNS[part]
                self.places.append((part, 1, 0))
            else:
                factor, offset = _STAGE.fullmatch(part).groups()
                pattern += _NUMBER
                self.places.append(('s', int(factor or 1), int(offset or 0)))
        self._text_of_pattern = pattern

    # compiled when first used: there are hundreds of templates, and most programs load one checkpoint or none
    @cached_property
    def pattern(self) -> re.Pattern:
        """Of a key that is an instance of this template."""
        return re.compile(self._text_of_pattern)

    @cached_property
    def at_end(self) -> re.Pattern:
        """Of a key that ends in an instance of this template, with what is before it as the first group."""
        return re.compile(r'(|.*?\.)' + self._text_of_pattern)

    def match(self, key: str) -> dict | None:
        """The values of the placeholders if ``key`` is an instance of this template, else None."""
        found = self.pattern.fullmatch(key)
        return None if found is None else self._values(found.groups())

    def prefix_of(self, key: str) -> str | None:
        """The prefix of ``key`` before an instance of this template (empty, or ending with a dot), or None."""
        found = self.at_end.fullmatch(key)
        if found is None or self._values(found.groups()[1:]) is None:
            return None
        return found[1]

    def fill(self, values: dict) -> str:
        """The name with these values in its placeholders."""
        text = self.text
        for name, factor, offset in self.places:
            value = values[name] * factor + offset if name == 's' else values[name]
            text = re.sub(r'\{.+?\}', str(value), text, count=1)
        return text

    def _values(self, groups: tuple[str, ...]) -> dict | None:
        values = {}
        for (name, factor, offset), text in zip(self.places, groups, strict=True):
            if name != 's':
                values[name] = text
                continue
            stage, remainder = divmod(int(text) - offset, factor)
            if remainder or stage not in range(4):
                return None
            values['s'] = stage
        return values


class Layout(NamedTuple):
    """How a format stores a tensor: ``read`` converts theirs to the official shape, ``write`` converts back."""

    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor] | None = None


def _as_matrix(tensor: Tensor) -> Tensor:
    return tensor.flatten(1) if tensor.dim() > 1 else tensor


def _side(kernel: Tensor, dims: int) -> int | None:
    """K of a kernel with K * K positions first; None for another shape, which is then reported as it is."""
    side = round(kernel.shape[0] ** 0.5) if kernel.dim() == dims else 0
    return side if side and side ** 2 == kernel.shape[0] else None


def _sparse_depthwise(kernel: Tensor) -> Tensor:
    size = _side(kernel, 2)
    if size is None:
        return kernel
    channels = kernel.shape[1]
    return kernel.t().reshape(channels, 1, size, size).transpose(2, 3).contiguous()


def _sparse_dense(kernel: Tensor) -> Tensor:
    size = _side(kernel, 3)
    if size is None:
        return kernel
    _, inputs, outputs = kernel.shape
    return kernel.permute(2, 1, 0).reshape(outputs, inputs, size, size).transpose(2, 3).contiguous()


SAME = Layout(lambda t: t, lambda t: t)
# (C,), however many axes of length one are around it
VECTOR = Layout(lambda t: t.reshape(-1), lambda t: t)
# torchvision's layer scale (C, 1, 1)
C11 = Layout(lambda t: t.reshape(-1), lambda t: t.reshape(-1, 1, 1))
# GRN: the official (1, 1, 1, C), in timm and mmpretrain (C,)
GRN_111C = Layout(lambda t: t.reshape(1, 1, 1, -1), lambda t: t)
GRN_C = Layout(lambda t: t.reshape(1, 1, 1, -1), lambda t: t.reshape(-1))
# a linear layer (out, in) that some libraries, or some of their sizes, keep as a 1x1 convolution (out, in, 1, 1)
POINTWISE = Layout(_as_matrix, lambda t: t)
# MinkowskiEngine kernels, positions first and column by column: (K*K, C) and (K*K, in, out)
SPARSE_DEPTHWISE = Layout(_sparse_depthwise)
SPARSE_CONV = Layout(_sparse_dense)


class Row(NamedTuple):
    """One line of a mapping: their name, the official name (None: dropped on purpose), their layout."""

    theirs: Template
    ours: Template | None
    layout: Layout


def table(*lines: tuple) -> tuple[Row, ...]:
    """Rows from (their name, official name or None[, layout])."""
    return tuple(Row(Template(theirs), None if ours is None else Template(ours), layout[0] if layout else SAME)
                 for theirs, ours, *layout in lines)
