"""The module ``mmcv._ext``: ours where mmcv has no compiled operators, compiled ones handled with care where it has.

mmcv keeps its compiled operators in one extension module. mmcv-lite, and onedl-mmcv as it comes from a package index,
lack it, and ``import mmcv.ops`` then fails. :func:`install` puts a module of that name in place.
"""
import importlib.util
import re
import sys
from collections.abc import Callable
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from inspect import signature
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from . import (
    carafe,
    deform_conv,
    deform_roi_pool,
    focal_loss,
    masked_conv,
    ms_deform_attn,
    nms,
    psa_mask,
    roi_align,
    roi_pool,
    sync_bn,
)

NOT_OPERATORS = ('get_compiler_version', 'get_compiling_cuda_version')  # what else mmcv asks of mmcv._ext

# Operator -> the arguments that it writes to, by name.
OUTPUTS = {
    nms.nms: (),
    nms.softnms: ('dets',),
    nms.nms_match: (),
    roi_align.roi_align_forward: ('output', 'argmax_y', 'argmax_x'),
    roi_align.roi_align_backward: ('grad_input',),
    roi_pool.roi_pool_forward: ('output', 'argmax'),
    roi_pool.roi_pool_backward: ('grad_input',),
    deform_roi_pool.deform_roi_pool_forward: ('output',),
    deform_roi_pool.deform_roi_pool_backward: ('grad_input', 'grad_offset'),
    deform_conv.deform_conv_forward: ('output',),
    deform_conv.deform_conv_backward_input: ('gradInput', 'gradOffset'),
    deform_conv.deform_conv_backward_parameters: ('gradWeight',),
    deform_conv.modulated_deform_conv_forward: ('output',),
    deform_conv.modulated_deform_conv_backward: ('grad_input', 'grad_weight', 'grad_bias', 'grad_offset', 'grad_mask'),
    carafe.carafe_forward: ('rfeatures', 'routput', 'rmasks', 'output'),
    carafe.carafe_backward: ('rtop_grad', 'rbottom_grad_hs', 'rbottom_grad', 'rmask_grad', 'bottom_grad', 'mask_grad'),
    carafe.carafe_naive_forward: ('output',),
    carafe.carafe_naive_backward: ('bottom_grad', 'mask_grad'),
    masked_conv.masked_im2col_forward: ('col',),
    masked_conv.masked_col2im_forward: ('im',),
    psa_mask.psamask_forward: ('output',),
    psa_mask.psamask_backward: ('grad_input',),
    ms_deform_attn.ms_deform_attn_forward: (),
    ms_deform_attn.ms_deform_attn_backward: ('grad_value', 'grad_sampling_loc', 'grad_attn_weight'),
    focal_loss.sigmoid_focal_loss_forward: ('output',),
    focal_loss.sigmoid_focal_loss_backward: ('grad_input',),
    focal_loss.softmax_focal_loss_forward: ('output',),
    focal_loss.softmax_focal_loss_backward: ('buff', 'grad_input'),
    sync_bn.sync_bn_forward_mean: ('mean',),
    sync_bn.sync_bn_forward_var: ('var',),
    sync_bn.sync_bn_forward_output: ('running_mean', 'running_var', 'norm', 'std', 'output'),
    sync_bn.sync_bn_backward_param: ('grad_weight', 'grad_bias'),
    sync_bn.sync_bn_backward_data: ('grad_input',),
}
OPERATORS = {operator.__name__: operator for operator in OUTPUTS}


def compiled() -> bool:
    """Whether the installed mmcv brings compiled operators (False where there is no mmcv); imports nothing."""
    return _compiled_spec() is not None


def install() -> None:
    """Let ``mmcv.ops`` import, and give what it calls tensors that it can take; safe to call more than once.

    Must run before mmcv.ops is imported. Does nothing without mmcv.
    """
    if _mmcv_folders():
        sys.modules.setdefault('mmcv._ext', WithCare(_compiled_spec()) if compiled() else StandIn())


def in_use() -> dict[str, str]:
    """Every operator that the installed mmcv knows -> 'compiled', 'torch' (ours) or 'unavailable'.

    Empty where mmcv is not installed.
    """
    names = set().union(*_names_by_module().values())
    if compiled():
        return {name: 'compiled' for name in sorted(names)}
    return {name: 'torch' if name in OPERATORS else 'unavailable' for name in sorted(names)}


def unavailable_in(model: torch.nn.Module) -> dict[str, str]:
    """Name of every layer of a model that needs an operator which is not available -> that operator."""
    if compiled():
        return {}
    by_module = _names_by_module()
    found = {}
    for name, layer in model.named_modules():
        package, _, module = type(layer).__module__.rpartition('.')
        if package == 'mmcv.ops':
            missing = by_module.get(module, set()) - set(OPERATORS)
            if missing:
                found[name] = min(missing)
    return found


def _names_by_module() -> dict[str, set[str]]:
    """Module of the installed mmcv.ops -> operators that it takes from mmcv._ext; nothing is imported."""
    found = {}
    for folder in _mmcv_folders():
        for source in sorted(Path(folder, 'ops').glob('*.py')):
            for listed in re.findall(r"load_ext\(\s*'_ext',\s*\[(.*?)\]", source.read_text('utf-8'), re.DOTALL):
                found[source.stem] = set(re.findall(r"'(\w+)'", listed)) - set(NOT_OPERATORS)
    return found


def _mmcv_folders() -> list[str]:
    """Folders of the installed mmcv, found without importing it; empty where there is none."""
    spec = importlib.util.find_spec('mmcv')
    return list(spec.submodule_search_locations or ()) if spec else []


def _compiled_spec() -> ModuleSpec | None:
    """Where the compiled operators are; None where there are none."""
    folders = _mmcv_folders()
    return PathFinder.find_spec('mmcv._ext', folders) if folders else None


def load_compiled() -> ModuleType:
    """The installed mmcv's compiled operators as they are.

    Raises:
        ImportError: they do not load, as those compiled for another torch.
    """
    spec = _compiled_spec()
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Extension(ModuleType):
    """What the two modules share."""

    def __init__(self):
        super().__init__('mmcv._ext', __doc__)

    def __getattr__(self, name: str):
        if name.startswith('_'):  # what Python and debuggers look up on any module
            raise AttributeError(f'module mmcv._ext has no attribute {name!r}')
        return self.operator(name)


class StandIn(_Extension):
    """``mmcv._ext`` without a compiler: our operators, and for any other name a function that raises."""

    def __init__(self):
        super().__init__()
        # mmengine looks the module up by its spec; no loader there means "not the full mmcv", which is true.
        self.__spec__ = ModuleSpec('mmcv._ext', loader=None)
        vars(self).update({name: without_autocast(operator) for name, operator in OPERATORS.items()},
                          **{name: lambda: 'n/a' for name in NOT_OPERATORS})

    @staticmethod
    def operator(name: str) -> Callable:
        def unavailable(*args, **kwargs):
            raise NotImplementedError(
                f'mmcv operator {name!r} is not available: the installed mmcv has no compiled operators and '
                'convnext_dense brings only those that models of mmdet and mmsegmentation use; build mmcv from source '
                'with `MMCV_WITH_OPS=1 pip install --no-build-isolation` in place of mmcv-lite, see docs/operators.md')

        return unavailable


def without_autocast(operator: Callable) -> Callable:
    """``operator``, which chooses its dtypes itself: autocast would round inside it where backward runs under it."""
    @wraps(operator)
    def call(*args, **kwargs):
        given = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        if not torch.amp.is_autocast_available(given.device.type):  # as of meta tensors
            return operator(*args, **kwargs)
        with torch.autocast(given.device.type, enabled=False):
            return operator(*args, **kwargs)

    return call


class WithCare(_Extension):
    """The compiled ``mmcv._ext``, loaded when first used, whose operators see tensors that they can take.

    Compiled operators read memory as if it were contiguous, so that channels-last tensors give wrong numbers without
    an error; they have no bfloat16 on the CPU and want all floating tensors in one dtype. Here every operator that
    :data:`OPERATORS` knows gets contiguous tensors of one dtype, and what it writes goes where it belongs.
    """

    def __init__(self, spec: ModuleSpec):
        super().__init__()
        self.__spec__ = spec
        self.__file__ = spec.origin
        self._compiled = None

    def operator(self, name: str) -> Callable:
        if self._compiled is None:
            self._compiled = load_compiled()
        found = getattr(self._compiled, name)
        if name in OPERATORS:
            found = with_care(found, OPERATORS[name])
        setattr(self, name, found)
        return found


def with_care(operator: Callable, ours: Callable) -> Callable:
    """``operator``, given contiguous tensors of one floating dtype that is not bfloat16.

    Args:
        operator: a compiled operator.
        ours: the one of :data:`OPERATORS` with the same arguments.
    """
    parameters, outputs = signature(ours), OUTPUTS[ours]

    @wraps(ours)
    def call(*args, **kwargs):
        given = parameters.bind(*args, **kwargs).arguments
        dtypes = {value.dtype for value in given.values() if isinstance(value, Tensor) and value.is_floating_point()}
        dtype = dtypes.pop() if len(dtypes) == 1 and torch.bfloat16 not in dtypes else torch.float32
        passed = {name: _plain(value, dtype) for name, value in given.items()}
        result = operator(**passed)
        for name in outputs:
            if passed[name] is not given[name]:
                given[name].copy_(passed[name])
        first = next(iter(given.values()))
        return result.to(first.dtype) if isinstance(result, Tensor) and result.is_floating_point() else result

    return call


def _plain(value, dtype: torch.dtype):
    """A tensor contiguous and, if floating, as ``dtype``: itself where it is so already; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return (value.to(dtype) if value.is_floating_point() else value).contiguous()
