"""Checkpoints: published ConvNeXt weights of any format load safely and completely, or fail with the exact reason."""
from .loading import fit_checkpoint, load_checkpoint
from .reading import read_checkpoint

__all__ = ['fit_checkpoint', 'load_checkpoint', 'read_checkpoint']
