"""Mixed precision on a machine without a GPU."""
import logging
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper


class CpuAmpOptimWrapper(OptimWrapper):
    """Stands in for mmengine's AmpOptimWrapper where there is no GPU (mmengine's own refuses to be built there).

    fp16, mmengine's default, becomes float32 with one logged line, so that a published recipe can be smoke-tested
    anywhere. bf16, which CPUs can do, stays bf16; its range is that of float32, so it needs no loss scaling.

    Args:
        loss_scale: accepted for compatibility, without effect.
        dtype: 'bfloat16' or torch.bfloat16 for bf16; anything else means float32 here.
        use_fsdp: accepted for compatibility, without effect.
        **kwargs: as for mmengine's OptimWrapper.
    """

    def __init__(self, loss_scale='dynamic', dtype=None, use_fsdp: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.bf16 = dtype in ('bfloat16', torch.bfloat16)
        if not self.bf16:
            print_log('no GPU: fp16 mixed precision falls back to float32 (a CPU can do bf16: --amp bf16)',
                      logger='current', level=logging.WARNING)

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16, enabled=self.bf16):
            yield
