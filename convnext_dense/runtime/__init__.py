"""Exported models (docs/deploy.md): numpy, OpenCV and a runtime of the file's format; no torch, no MM package."""
from .predictor import Predictor

__all__ = ['Predictor']
