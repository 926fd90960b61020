"""Backbones; they need torch only, and enter mmengine's registry where it is installed."""
from ..architectures import ARCHITECTURES
from .compiling import BatchPadToSizes
from .convnext import Block, ConvNeXt
from .folding import fold_for_inference
from .layers import GRN, LayerNorm2d
from .roadmap import PAPER_TOP1, REGIMES, STEPS, RoadmapNet

__all__ = ['ARCHITECTURES', 'BatchPadToSizes', 'Block', 'ConvNeXt', 'GRN', 'LayerNorm2d', 'PAPER_TOP1', 'REGIMES',
           'RoadmapNet', 'STEPS', 'fold_for_inference']
