"""Data to and from a GPU without the host waiting for it."""
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor


def to_device(data, device: torch.device):
    """Tensors in nested data of a data loader, moved; those for a GPU through pinned memory, without waiting.

    Data elements are new ones, but what is not a tensor, and their meta information, stay the same objects.
    """
    if isinstance(data, Tensor):
        if device.type != 'cuda' or data.is_cuda:
            return data.to(device)
        return data.pin_memory().to(device, non_blocking=True)
    if isinstance(data, BaseDataElement):
        moved, values = type(data).__new__(type(data)), vars(data)
        vars(moved).update(values, _metainfo_fields=set(data._metainfo_fields), _data_fields=set(data._data_fields))
        vars(moved).update({name: to_device(value, device) for name, value in values.items()
                            if name in data._data_fields})
        return moved
    if hasattr(data, 'tensor') and isinstance(data.tensor, Tensor):  # mmdet's boxes
        return type(data)(to_device(data.tensor, device), clone=False)
    if isinstance(data, Mapping):
        return {key: to_device(value, device) for key, value in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str | bytes) and not hasattr(data, '_fields'):
        return type(data)(to_device(value, device) for value in data)
    return data


def batch_to_device(batch, device: torch.device):
    """A batch of a data loader, moved as by `to_device`; to a GPU while it still computes the step before.

    The copy runs in a stream of its own. What the GPU is given afterwards waits for it, the host does not.
    """
    if device.type != 'cuda':
        return to_device(batch, device)
    current, beside = torch.cuda.current_stream(device), copy_stream(current_index(device))
    with torch.cuda.stream(beside):
        moved = to_device(batch, device)
    current.wait_stream(beside)
    for tensor in tensors_of(moved):
        tensor.record_stream(current)  # its memory is used again only after what ``current`` computes from it
    return moved


def current_index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


@cache
def copy_stream(index: int) -> torch.cuda.Stream:
    """The stream of copies to a GPU, one a process."""
    return torch.cuda.Stream(index)


def tensors_of(data) -> Iterator[Tensor]:
    """Tensors in nested data."""
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, BaseDataElement):
        yield from tensors_of(data.values())
    elif hasattr(data, 'tensor') and isinstance(data.tensor, Tensor):
        yield data.tensor
    elif isinstance(data, Mapping):
        yield from tensors_of(list(data.values()))
    elif isinstance(data, Sequence) and not isinstance(data, str | bytes):
        for value in data:
            yield from tensors_of(value)


def host_would_wait(tensor: Tensor) -> bool:
    """Whether the host would wait for the device to know a value of a tensor, as a size that depends on values.

    A compiled graph ends where one must be known.
    """
    return tensor.device.type != 'cpu' or torch.compiler.is_compiling()


def host_values(values: Sequence, like: Tensor) -> Tensor:
    """Numbers of the host as a tensor of the type and device of ``like``, without waiting for the device."""
    return to_device(torch.tensor(values, dtype=like.dtype), like.device)


class HostCopy:
    """Scalars on their way from a device to the host, all in one transfer.

    Args:
        values: name -> number, or tensor of one element.
    """

    def __init__(self, values: Mapping[str, Tensor | float]):
        self.names = list(values)
        tensors = {name: value.detach().reshape(()) for name, value in values.items() if isinstance(value, Tensor)}
        self.given = {name: value for name, value in values.items() if name not in tensors}
        self.copied, self.event, self.tensors = list(tensors), None, None
        if tensors:
            self.tensors = torch.stack(list(tensors.values())).double()
            if self.tensors.is_cuda:
                on_host = torch.empty(len(tensors), dtype=self.tensors.dtype, pin_memory=True)
                self.tensors = on_host.copy_(self.tensors, non_blocking=True)
                self.event = torch.cuda.Event()
                self.event.record()

    def is_ready(self) -> bool:
        """Whether `numbers` would not wait."""
        return self.event is None or self.event.query()

    def numbers(self) -> dict[str, float]:
        """The values; waits until they have come."""
        if self.event is not None:
            self.event.synchronize()
        found = dict(self.given) if self.tensors is None else {
            **self.given, **dict(zip(self.copied, self.tensors.tolist(), strict=True))}
        return {name: found[name] for name in self.names}
