"""Checkpoints: any published ConvNeXt weight loads, safely and completely, or says exactly why not."""
from .loading import fit_checkpoint, load_checkpoint
from .reading import read_checkpoint

__all__ = ['fit_checkpoint', 'load_checkpoint', 'read_checkpoint']
