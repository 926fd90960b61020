"""From a trained checkpoint to a file that runs without the training stack (docs/deploy.md)."""
from .export import Options, export

__all__ = ['Options', 'export']
