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
# Annotations that say how much of them a pod has, by container and device.
ALLOCATIONS = (
    ("gpushare.alibabacloud.com/core-percentage", "aliyun.com/gpu-core.percentage"),
    ("scheduler.framework.gpushare.allocation", "aliyun.com/gpu-mem"),
)
# How many devices a node has, where they are shared.
COUNT = "aliyun.com/gpu-count"


@dataclass(frozen=True, slots=True)
class Devices:
    """How many devices a node has, and by shared resource how much of it all of them are."""

    count: int
    shared: Resources


@dataclass(frozen=True, slots=True)
class Share:
    """What a pod takes of the devices: ``count`` of them, ``thousandths`` of each.

    Where it is ``amount`` of a single resource of which each device has ``each``, it is counted in that instead, so
    that three thirds are a whole; 0: it is not.
    """

    count: int
    thousandths: int
    amount: int = 0
    each: int = 0


def is_gpu(resource: str) -> bool:
    """Returns whether a resource counts GPUs (``nvidia.com/gpu``, ``amd.com/gpu``…)."""
    return resource.endswith("/gpu")


def devices_of(node_class: NodeClass) -> Devices | None:
    """Returns the devices of a class, or None if no free block lists them.

    A class without free blocks, such as a node pool at zero nodes, has as many as its nodes say.
    """
    count = max((len(block.gpu_free) for block in node_class.free), default=0)
    shared = shared_by(node_class.allocatable)
    if not node_class.free and shared:
        count = dict(node_class.allocatable).get(COUNT, 0)
    return Devices(count, shared) if count > 0 else None


def shared_by(allocatable: Resources) -> Resources:
    """Returns what a node has of the resources by which its devices are shared."""
    return tuple((name, amount) for name, amount in allocatable if name in SHARED and amount > 0)


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
    parts, asked = 0, []
    for name, amount in requests:
        total = known.get(name, 0)
        if total and amount:
            parts = max(parts, -(-amount * WHOLE * devices.count // total))
            asked.append((amount, total))
    if parts > WHOLE:
        return Share(-(-parts // WHOLE), WHOLE)
    if len(asked) == 1 and asked[0][1] % devices.count == 0 and asked[0][1] < WHOLE * devices.count:
        return Share(1, parts, asked[0][0], asked[0][1] // devices.count)
    return Share(1 if parts else 0, parts)


def _amount(left: int, wanted: Share) -> int:
    """Returns what some thousandths are of the resource that a share is counted in: they were rounded down."""
    return -(-left * wanted.each // WHOLE)


def _times(left: int, wanted: Share) -> int:
    return _amount(left, wanted) // wanted.amount if wanted.each else left // wanted.thousandths


def room(free: Iterable[int], wanted: Share) -> int:
    """Returns how many times a share fits the devices."""
    return sum(_times(left, wanted) for left in free) // wanted.count


def take(free: Iterable[int], wanted: Share, times: int) -> tuple[int, ...]:
    """Returns what is left of the devices, least first."""
    left = sorted(free)
    for _ in range(wanted.count * times):
        index = next(i for i, device in enumerate(left) if _times(device, wanted))
        if wanted.each:
            left[index] = (_amount(left[index], wanted) - wanted.amount) * WHOLE // wanted.each
        else:
            left[index] -= wanted.thousandths
        left.sort()
    return tuple(left)


def give(free: Iterable[int], wanted: Share, times: int) -> tuple[int, ...]:
    """Returns what is left of the devices, least first, once a share is given back: on the fullest it can be on."""
    left = sorted(free)
    for _ in range(wanted.count * times):
        if wanted.each:
            back = [(_amount(device, wanted) + wanted.amount) * WHOLE // wanted.each for device in left]
        else:
            back = [device + wanted.thousandths for device in left]
        index = next((i for i, device in enumerate(back) if device <= WHOLE), None)
        if index is None:
            break
        left[index] = back[index]
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
