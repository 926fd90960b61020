"""Learning-rate decay over layers; needs torch and mmengine only."""
from .layer_decay import LayerDecayOptimWrapperConstructor, ParamSetting, format_groups, parameter_settings

__all__ = ['LayerDecayOptimWrapperConstructor', 'ParamSetting', 'format_groups', 'parameter_settings']
