"""mmcv's operators on torch, torchvision and numpy, for an mmcv without compiled ones; care for compiled ones.

Every operator that a model of mmdet or mmsegmentation reaches has the signature and the results of the compiled one
of its name, for tensors of any layout on the CPU or a GPU, in float32, half precision and float64. One small file a
family; :mod:`.extension` puts them where mmcv expects its compiled module. docs/operators.md lists them with their
users and the comparison with compiled ones.
"""
from .extension import (
    OPERATORS,
    StandIn,
    WithCare,
    compiled,
    in_use,
    install,
    load_compiled,
    unavailable_in,
    with_care,
)

__all__ = ['OPERATORS', 'StandIn', 'WithCare', 'compiled', 'in_use', 'install', 'load_compiled', 'unavailable_in',
           'with_care']
