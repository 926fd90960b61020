"""Optimizer state divided among processes: ZeRO, stage 1 (Rajbhandari et al., 2020, arXiv:1910.02054)."""
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# those whose step treats every parameter by itself, and whose state is made by the first step
SHARDABLE = ('Adam', 'AdamW', 'Adamax', 'NAdam', 'RAdam', 'RMSprop', 'SGD')


class ShardedState:
    """Lets each process keep, and update with, an optimizer's state for its share of the parameters only.

    Every process has all parameters and, from DistributedDataParallel, all gradients, so that clipping, loss scaling,
    accumulation and averaging of weights are those of DDP. A step updates the parameters that the process owns; then
    each is sent by its owner to the others. All of it is done by hooks of ``torch.optim.Optimizer``: the optimizer, its
    groups and its wrapper stay what they are.

    Args:
        optimizer: of `SHARDABLE`, before its first step, the same on every process of the default group.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()
        self.params = [param for group in optimizer.param_groups for param in group['params']]
        self.owners = share([param.numel() for param in self.params], self.processes)
        optimizer.register_step_pre_hook(self._drop_foreign_gradients)
        optimizer.register_step_post_hook(self._exchange)
        optimizer.register_load_state_dict_pre_hook(self._without_foreign_state)

    def describe(self) -> str:
        """How many values of the parameters this process owns, for the log."""
        own, everything = (sum(param.numel() for param, owner in zip(self.params, self.owners, strict=True)
                               if rank in (None, owner)) for rank in (self.rank, None))
        return (f'{own / 1e6:.1f} of {everything / 1e6:.1f} million parameters on rank {self.rank}, which gathers all '
                'for checkpoints, in CPU memory')

    def complete(self, state_dict: dict) -> dict:
        """The state dict of the whole optimizer; every process calls this.

        Args:
            state_dict: of this process's optimizer, or of its wrapper.

        Returns:
            The same with all parameters' state, in which each tensor is a `SharedTensor`. All processes then call
            `SharedTensor.fetch` of each, in the order of the dicts.
        """
        mine = {number: {key: _describe(value) for key, value in values.items()}
                for number, values in state_dict['state'].items()}
        parts = [None] * self.processes
        dist.all_gather_object(parts, mine)
        state = {}
        for number, (param, owner) in enumerate(zip(self.params, self.owners, strict=True)):
            if number in parts[owner]:
                own = state_dict['state'].get(number, {})
                state[number] = {key: SharedTensor(owner, param.device, *value, own.get(key))
                                 if type(value) is _Layout else value for key, value in parts[owner][number].items()}
        return {**state_dict, 'state': state}

    def _drop_foreign_gradients(self, optimizer, args, kwargs) -> None:
        for param, owner in zip(self.params, self.owners, strict=True):
            if owner != self.rank:
                param.grad = None  # an optimizer passes over parameters without a gradient

    def _exchange(self, optimizer, args, kwargs) -> None:
        sent = [dist.broadcast(param.data, owner, async_op=True)
                for param, owner in zip(self.params, self.owners, strict=True) if param.requires_grad]
        for work in sent:
            work.wait()

    def _without_foreign_state(self, optimizer, state_dict: dict) -> dict:
        return {**state_dict, 'state': {number: values for number, values in state_dict['state'].items()
                                        if self.owners[number] == self.rank}}


class SharedTensor:
    """A tensor of one process that all of them can have.

    Args:
        owner: the process's rank.
        device: of the tensor.
        shape, stride, dtype: its layout in memory.
        tensor: itself, on its owner.
    """

    def __init__(self, owner: int, device: torch.device, shape: Sequence[int], stride: Sequence[int],
                 dtype: torch.dtype, tensor: Tensor | None = None):
        self.owner, self.tensor = owner, tensor
        self.device, self.shape, self.stride, self.dtype = device, shape, stride, dtype

    def fetch(self) -> Tensor:
        """The tensor, in new memory except on its owner; every process calls this."""
        tensor = self.tensor
        if tensor is None:
            tensor = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)
        dist.broadcast(tensor, self.owner)
        return tensor


class _Layout(tuple):
    """Shape, stride and dtype of a tensor."""


def _describe(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return _Layout((value.shape, value.stride(), value.dtype)) if value.dim() else value.cpu()


def fetch_all(node: Any) -> None:
    """Take part in the transfer of every `SharedTensor` in nested dicts."""
    if isinstance(node, SharedTensor):
        node.fetch()
    elif isinstance(node, dict):
        for value in node.values():
            fetch_all(value)


def share(sizes: Sequence[int], processes: int) -> list[int]:
    """Owner of each parameter, such that all own about as much: the largest first, each to who has the least."""
    owners, owned = [0] * len(sizes), [0] * processes
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        owners[number] = owned.index(min(owned))
        owned[owners[number]] += sizes[number]
    return owners


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Memory of an optimizer's state on this process."""
    return sum(value.numel() * value.element_size() for values in optimizer.state.values() for value in values.values()
               if isinstance(value, Tensor))
