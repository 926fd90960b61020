"""What a training step asks of the machine, counted on any device: operators, waits, arithmetic, bytes."""
from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Operators whose result has a size, or is a number, that the host must know before it can go on.
WAITS = {'_local_scalar_dense': 'item', 'nonzero': 'nonzero', 'masked_select': 'masked_select', 'unique_dim': 'unique',
         '_unique2': 'unique', '_unique': 'unique', 'unique_consecutive': 'unique', 'nms': 'nms', 'nms_mask': 'nms',
         'equal': 'equal', 'bincount': 'bincount'}
INDEXING = ('index', 'index_put', 'index_put_', '_unsafe_index', '_index_put_impl_')


class OperatorCounts(TorchDispatchMode):
    """Counts operators that run inside, and those of them at which the host waits for a GPU.

    Views are not counted, since they start no work. Every other operator is at least one launch on a GPU. Counted on
    the CPU, copies between CPU and GPU are missing.

    Args:
        device: 'cuda' counts waits of tensors on a GPU alone, 'cpu' all.

    Attributes:
        operators: how many.
        waits: what waits -> how often. 'boolean index' is indexing by a mask, which asks how many are set.
    """

    def __init__(self, device: str = 'cpu'):
        super().__init__()
        self.device = device
        self.operators = 0
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.operators += 1
        wait = waits_for(function.overloadpacket.__name__, args, kwargs or {}, result)
        if wait and (self.device == 'cpu' or on_gpu(args, result)):
            self.waits[wait] += len(args[0]) if wait == 'nms' and args[0].dim() == 3 else 1  # of each image
        return result


def waits_for(name: str, args: tuple, kwargs: dict, result) -> str | None:
    """Why a call of the operator ``name`` makes the host wait for a GPU; None if it does not."""
    if name in WAITS:
        return WAITS[name]
    if name in INDEXING:
        masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
        return 'boolean index' if masks else None
    if name == 'repeat_interleave' and kwargs.get('output_size') is None:
        return 'repeat_interleave'
    moved = name in ('_to_copy', 'copy_') and isinstance(result, Tensor)
    sources = [arg for arg in args if isinstance(arg, Tensor)]
    if moved and {tensor.device.type for tensor in (*sources, result)} == {'cpu', 'cuda'}:
        from_gpu = result.device.type == 'cpu'
        if not kwargs.get('non_blocking') and not (name == 'copy_' and args[2:3] == (True,)):
            return 'copy from the GPU' if from_gpu else 'copy to the GPU'
    return None


def on_gpu(args: tuple, result) -> bool:
    """Whether a tensor among the arguments or the result is on a GPU."""
    return any(isinstance(value, Tensor) and value.is_cuda for value in (*args, result))


class SavedBytes:
    """Bytes of the tensors that a forward pass keeps for the backward one, each storage once, without ``parameters``.

    A context manager.

    Attributes:
        total: bytes so far.
    """

    def __init__(self, parameters):
        self.seen = {parameter.untyped_storage().data_ptr() for parameter in parameters}
        self.total = 0
        self.alive = []  # so that no storage is given away and counted as a known one
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor)

    def _save(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.total += storage.nbytes()
            self.alive.append(storage)
        return tensor

    def __enter__(self) -> 'SavedBytes':
        self.hooks.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.hooks.__exit__(*error)
        self.alive.clear()


def least_bytes(saved: int, parameters: list[Tensor]) -> int:
    """Bytes that a training step with AdamW moves at least.

    What is kept for the backward pass is written and read once. Weights in float32 are read by the forward and by the
    backward pass, gradients are written and read, and AdamW reads and writes weight and both moments: ten times 4 bytes
    a parameter.
    """
    return 2 * saved + sum(40 * parameter.numel() for parameter in parameters)
