"""Mixed precision on GPUs and CPUs."""
import logging
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from ..errors import UserError

DTYPES = {'float16': torch.float16, 'bfloat16': torch.bfloat16, 'float32': torch.float32}


@OPTIM_WRAPPERS.register_module()
class MixedPrecisionOptimWrapper(AmpOptimWrapper):
    """mmengine's AmpOptimWrapper, with two differences.

    - Losses are scaled in fp16 only. bf16 has the range of float32: scaling would cost waits and hide for some
      iterations that a loss is not finite.
    - It also works without a GPU. bf16 stays bf16; fp16, the default, becomes float32 with one logged line, so that a
      published recipe can be tried anywhere.

    Args:
        loss_scale: of fp16: 'dynamic', a fixed scale, or a dict of arguments for torch's GradScaler.
        dtype: 'float16' (None means that), 'bfloat16', 'float32', or such a torch.dtype.
        use_fsdp: scale the losses of a FullyShardedDataParallel model.
        **kwargs: as for mmengine's OptimWrapper.

    Raises:
        UserError: any other ``dtype`` or ``loss_scale``, or bf16 on a GPU that cannot do it.
    """

    def __init__(self, loss_scale: str | float | dict = 'dynamic', dtype: str | torch.dtype | None = None,
                 use_fsdp: bool = False, **kwargs):
        OptimWrapper.__init__(self, **kwargs)  # AmpOptimWrapper's refuses to run without a GPU
        self.device_type = get_device()
        name = str(dtype or 'float16').removeprefix('torch.')
        if name not in DTYPES:
            raise UserError(f'optim_wrapper.dtype: expected one of {", ".join(DTYPES)}, found {dtype!r}')
        self.cast_dtype = DTYPES[name]
        if self.device_type == 'cpu' and self.cast_dtype == torch.float16:
            self.cast_dtype = torch.float32
            print_log('no GPU: fp16 mixed precision falls back to float32 (a CPU can do bf16: --amp bf16)',
                      logger='current', level=logging.WARNING)
        if self.device_type == 'cuda' and self.cast_dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
            raise UserError('optim_wrapper.dtype is bfloat16, but this GPU has no bf16: use --amp fp16')
        fixed = isinstance(loss_scale, (int, float))
        self._scale_update_param = float(loss_scale) if fixed else None
        self.loss_scaler = self._build_scaler({'init_scale': float(loss_scale)} if fixed else loss_scale, use_fsdp)

    def _build_scaler(self, options: str | dict, use_fsdp: bool) -> torch.amp.GradScaler:
        if options != 'dynamic' and not isinstance(options, dict):
            raise UserError(f"optim_wrapper.loss_scale: expected 'dynamic', a number or a dict, found {options!r}")
        options = {} if options == 'dynamic' else dict(options)
        if self.cast_dtype != torch.float16:
            options['enabled'] = False
        if use_fsdp:
            from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
            return ShardedGradScaler(self.device_type, **options)
        return torch.amp.GradScaler(self.device_type, **options)

    def state_dict(self) -> dict:
        """The optimizer's state; in fp16 the loss scaler's too."""
        return super().state_dict() if self.loss_scaler.is_enabled() else OptimWrapper.state_dict(self)

    @contextmanager
    def optim_context(self, model: torch.nn.Module):
        """Autocasting, and no synchronisation of gradients while they are accumulated."""
        with OptimWrapper.optim_context(self, model), torch.autocast(
                self.device_type, self.cast_dtype, enabled=self.cast_dtype != torch.float32):
            yield


def for_this_machine(optim_wrapper):
    """An ``optim_wrapper`` config that names mmengine's AmpOptimWrapper, with ours in its place on CUDA and CPUs.

    Anything else (another type or device, a wrapper that is already built) is returned as it is.
    """
    if not isinstance(optim_wrapper, dict) or optim_wrapper.get('type') not in ('AmpOptimWrapper', AmpOptimWrapper) \
            or get_device() not in ('cuda', 'cpu'):
        return optim_wrapper
    return {**optim_wrapper, 'type': MixedPrecisionOptimWrapper.__name__}
