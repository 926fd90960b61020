"""Operators of the block in fewer passes over memory (Triton), for GPUs, and where they are used."""
from .choice import choose, fused_kernels, set_fused_kernels

__all__ = ['choose', 'fused_kernels', 'set_fused_kernels']
