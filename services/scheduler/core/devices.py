"""GPUs that are shared: how much of each device is free, and what fits there.

A node class whose free blocks list thousandths per device (`gpuFree`) gets one column per device behind its resources,
least free first. A share lies on one device, the fullest that has room for it; whole GPUs take devices that nobody
shares. The sums beside them (``nvidia.com/gpu``, ``aliyun.com/gpu-mem``…) follow from the devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpufleet.model.cluster import FreeBlock, NodeClass
from gpufleet.model.resources import Resources

WHOLE = 1000
# Resources that say how much of a device a pod takes; a node has them in equal parts on each of its devices.
SHARED = ("aliyun.com/gpu-core.percentage", "aliyun.com/gpu-mem")


@dataclass(frozen=True, slots=True)
class Devices:
    """How many devices a node has, and by shared resource how much of it all of them are."""

    count: int
    shared: Resources


@dataclass(frozen=True, slots=True)
class Share:
    """What a pod takes of the devices: ``count`` of them, ``thousandths`` of each."""

    count: int
    thousandths: int


def is_gpu(resource: str) -> bool:
    """Returns whether a resource counts GPUs (``nvidia.com/gpu``, ``amd.com/gpu``…)."""
    return resource.endswith("/gpu")


def devices_of(node_class: NodeClass) -> Devices | None:
    """Returns the devices of a class, or None if no free block lists them."""
    count = max((len(block.gpu_free) for block in node_class.free), default=0)
    if not count:
        return None
    shared = tuple((name, amount) for name, amount in node_class.allocatable if name in SHARED and amount > 0)
    return Devices(count, shared)


def free_devices(block: FreeBlock, count: int) -> tuple[int, ...]:
    """Returns thousandths free by device, least first; a block that does not list them has its whole GPUs."""
    listed = block.gpu_free
    if not listed:
        listed = (WHOLE,) * min(count, sum(amount for name, amount in block.free if is_gpu(name)))
    return tuple(sorted((*listed, *(0,) * (count - len(listed)))))


def share(requests: Resources, devices: Devices) -> Share:
    """Returns what requests take of the devices."""
    whole = sum(amount for name, amount in requests if is_gpu(name))
    if whole:
        return Share(whole, WHOLE)
    known = dict(devices.shared)
    parts = 0
    for name, amount in requests:
        total = known.get(name, 0)
        if total:
            parts = max(parts, -(-amount * WHOLE * devices.count // total))
    if parts > WHOLE:
        return Share(-(-parts // WHOLE), WHOLE)
    return Share(1 if parts else 0, parts)


def room(free: Iterable[int], wanted: Share) -> int:
    """Returns how many times a share fits the devices."""
    return sum(left // wanted.thousandths for left in free) // wanted.count


def take(free: Iterable[int], wanted: Share, times: int) -> tuple[int, ...]:
    """Returns what is left of the devices, least first."""
    left = sorted(free)
    for _ in range(wanted.count * times):
        index = next(i for i, device in enumerate(left) if device >= wanted.thousandths)
        left[index] -= wanted.thousandths
        left.sort()
    return tuple(left)


def sums(names: Iterable[str], devices: Devices, free: Iterable[int]) -> Mapping[int, int]:
    """Returns what the devices leave of the resources that count them, by column."""
    left = list(free)
    whole = sum(device == WHOLE for device in left)
    total = dict(devices.shared)
    found = {}
    for column, name in enumerate(names):
        if is_gpu(name):
            found[column] = whole
        elif name in total:
            found[column] = sum(left) * total[name] // (WHOLE * devices.count)
    return found
