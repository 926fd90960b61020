"""Learning-rate decay over layers, and mixed precision; needs torch and mmengine only."""
from .amp import MixedPrecisionOptimWrapper
from .layer_decay import LayerDecayOptimWrapperConstructor, ParamSetting, format_groups, parameter_settings

__all__ = ['LayerDecayOptimWrapperConstructor', 'MixedPrecisionOptimWrapper', 'ParamSetting', 'format_groups',
           'parameter_settings']
