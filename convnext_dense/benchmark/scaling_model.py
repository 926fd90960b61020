"""How long a training step takes on many GPUs, from what is measured on one: gradients, links, overlap, data loading.

Every rank computes the same step on as many images (weak scaling), and DistributedDataParallel averages gradients while
the rest of the backward pass runs. Times are in seconds, sizes in bytes.
"""
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # bytes; torch's defaults for DistributedDataParallel
REACHED = 0.8  # share of a link's stated speed that large transfers reach


@dataclass(frozen=True)
class Link:
    """A connection.

    Args:
        bandwidth: bytes per second in one direction.
        latency: seconds of one message, however small.
    """
    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Network:
    """Nodes of GPUs.

    Args:
        name: for tables.
        inside: link of one GPU to the others of its node.
        between: link of a whole node to other nodes, which its GPUs share.
        gpus_per_node: GPUs in a node.
    """
    name: str
    inside: Link
    between: Link
    gpus_per_node: int = 8


@dataclass(frozen=True)
class Step:
    """What one process measures about a training step without communication.

    Args:
        before: seconds until the backward pass begins (forward pass, losses).
        backward: seconds of the backward pass.
        after: seconds of the rest (optimizer).
        gradients: for each parameter in the order in which they are complete, (seconds since the backward pass began,
            bytes).
        images: per process and step.
        loader_rate: images per second that all data-loading workers of one process deliver; infinite if not measured.
    """
    before: float
    backward: float
    after: float
    gradients: tuple[tuple[float, int], ...]
    images: int = 1
    loader_rate: float = math.inf

    @property
    def compute(self) -> float:
        return self.before + self.backward + self.after

    def lasting(self, seconds: float) -> 'Step':
        """The same step on a machine where it takes another time, all parts alike."""
        factor = seconds / self.compute
        return replace(self, before=self.before * factor, backward=self.backward * factor, after=self.after * factor,
                       gradients=tuple((ready * factor, size) for ready, size in self.gradients))

    @property
    def gradient_bytes(self) -> int:
        return sum(size for _, size in self.gradients)


def networks(gpus_per_node: int = 8) -> list[Network]:
    """Common ones. Speeds as stated by NVIDIA (H100: NVLink 450 GB/s per direction; NDR InfiniBand 400 Gb/s per port)
    and Ethernet standards, of which `REACHED` counts; latencies are assumptions, of NCCL with kernels and host."""
    nvlink = Link(REACHED * 450e9, 5e-6)

    def ethernet(gigabits: float) -> Link:
        return Link(REACHED * gigabits * 1e9 / 8, 50e-6)
    return [Network('InfiniBand 8 x 400 Gb/s', nvlink, Link(REACHED * gpus_per_node * 50e9, 10e-6), gpus_per_node),
            Network('InfiniBand 200 Gb/s', nvlink, Link(REACHED * 25e9, 10e-6), gpus_per_node),
            Network('Ethernet 100 Gb/s', nvlink, ethernet(100), gpus_per_node),
            Network('Ethernet 25 Gb/s', nvlink, ethernet(25), gpus_per_node)]


def ring(size: float, ranks: int, link: Link) -> float:
    """Seconds of a ring all-reduce: 2 (n - 1) messages of 1/n of the data one after the other."""
    return 2 * (ranks - 1) * (size / ranks / link.bandwidth + link.latency)


def tree(size: float, ranks: int, link: Link) -> float:
    """Seconds of a pipelined tree all-reduce: the data goes up and down, each with as many messages as levels."""
    return 2 * (size / link.bandwidth + math.ceil(math.log2(ranks)) * link.latency) if ranks > 1 else 0.0


def all_reduce(size: float, gpus: int, network: Network) -> float:
    """Seconds to add up ``size`` bytes: reduce-scatter in each node, all-reduce of each GPU's part between nodes by
    ring or tree, whichever is faster, and all-gather in each node."""
    local, nodes = min(gpus, network.gpus_per_node), -(-gpus // network.gpus_per_node)
    share = Link(network.between.bandwidth / local, network.between.latency)
    return ring(size, local, network.inside) + min(ring(size / local, nodes, share), tree(size / local, nodes, share))


def buckets(gradients: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
    """Gradients as DistributedDataParallel sends them: (seconds at which the bucket is complete, bytes)."""
    found, size, limit, ready = [], 0, FIRST_BUCKET, 0.0
    for ready, own in gradients:
        size += own
        if size >= limit:
            found.append((ready, size))
            size, limit = 0, BUCKET
    return [*found, (ready, size)] if size else found


def synchronized(step: Step, cost: Callable[[float], float]) -> float:
    """Seconds of a step without waiting for data: buckets are sent one after the other, each when it is complete.

    Args:
        step: as measured.
        cost: bytes of a bucket -> seconds of its all-reduce.
    """
    sent = 0.0
    for ready, size in buckets(step.gradients):
        sent = max(sent, ready) + cost(size)
    return step.before + max(step.backward, sent) + step.after


def step_seconds(step: Step, gpus: int, network: Network) -> float:
    """Seconds of a step on ``gpus`` GPUs; loading runs beside it and counts where it takes longer."""
    busy = synchronized(step, lambda size: all_reduce(size, gpus, network)) if gpus > 1 else step.compute
    return max(busy, step.images / step.loader_rate)


def efficiency(step: Step, gpus: int, network: Network) -> float:
    """Images per second and GPU, as a share of those of one GPU alone."""
    return step_seconds(step, 1, network) / step_seconds(step, gpus, network)
