"""GPUs that pods share: on which devices a pod lies, and what is left of each device of a node.

Nodes that are shared say how many devices they have (`aliyun.com/gpu-count`, or the label of ACK) and how much memory,
or how many hundredths of compute, all of them are; they have these in equal parts on each device. On which device a pod
lies is an annotation that the cluster's GPU scheduler writes when it binds the pod: `ALIYUN_COM_GPU_MEM_IDX`, or
`scheduler.framework.gpushare.allocation` and `gpushare.alibabacloud.com/core-percentage` by container and device.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from gpufleet.model.devices import ALLOCATIONS, COUNT, WHOLE, Devices, is_gpu, share, shared_by, take
from gpufleet.model.devices import room as fits

if TYPE_CHECKING:
    from services.inventory.core.objects import Node, Pod

# By device and resource: how much a pod has of it.
Allocation = tuple[tuple[int, str, int], ...]

COUNT_LABEL = "aliyun.accelerator/nvidia_count"
_MEMORY, _CORE = "aliyun.com/gpu-mem", "aliyun.com/gpu-core.percentage"
_INDEX, _AMOUNT = "ALIYUN_COM_GPU_MEM_IDX", "ALIYUN_COM_GPU_MEM_POD"


def allocation_from(annotations: Mapping[str, str]) -> Allocation:
    """Returns on which devices a pod lies; nothing where its annotations do not say, or cannot be read."""
    found: dict[tuple[int, str], int] = {}
    try:
        for annotation, resource in ALLOCATIONS:
            if annotation in annotations:
                for devices in json.loads(annotations[annotation]).values():
                    for device, amount in devices.items():
                        key = (int(device), resource)
                        found[key] = found.get(key, 0) + int(amount)
        if not found and _INDEX in annotations:
            found[int(annotations[_INDEX]), _MEMORY] = int(annotations.get(_AMOUNT, 0))
    except (ValueError, TypeError, AttributeError):
        return ()
    return tuple((device, resource, amount) for (device, resource), amount in sorted(found.items()) if amount > 0)


def devices_of(node: Node) -> Devices | None:
    """Returns the devices of a node, or None if they are not shared."""
    shared = shared_by(node.allocatable)
    if not shared:
        return None
    count = dict(node.allocatable).get(COUNT, 0)
    if not count:
        text = dict(node.labels).get(COUNT_LABEL, "")
        count = int(text) if text.isdecimal() else 0
    return Devices(count, shared) if 0 < count <= 64 else None


def uses_gpus(pod: Pod) -> bool:
    """Returns whether a pod takes GPUs, or parts of them."""
    return bool(pod.allocation) or any(is_gpu(name) or name in (_MEMORY, _CORE) for name, _ in pod.requests)


def free_gpus(devices: Devices, pods: Iterable[Pod]) -> tuple[int, ...]:
    """Returns thousandths free by device, most first.

    Pods whose devices are not known, as those that the GPU scheduler is binding, are taken to be where it would put
    them: on the fullest device that has room.
    """
    total = dict(devices.shared)
    used: dict[tuple[int, str], int] = {}
    unknown: list[Pod] = []
    for pod in pods:
        listed = [(d, r, amount) for d, r, amount in pod.allocation if 0 <= d < devices.count and r in total]
        for device, resource, amount in listed:
            used[device, resource] = used.get((device, resource), 0) + amount
        if not listed:
            unknown.append(pod)
    free = [WHOLE] * devices.count
    for (device, resource), amount in used.items():
        left = WHOLE + -amount * WHOLE * devices.count // total[resource]
        free[device] = min(free[device], max(0, left))
    left_over = tuple(sorted(free))
    for pod in sorted(unknown, key=lambda pod: (pod.created, pod.uid)):
        wanted = share(pod.requests, devices)
        if wanted.count and fits(left_over, wanted):
            left_over = take(left_over, wanted, 1)
        elif wanted.count:
            left_over = (*(0,) * min(wanted.count, devices.count), *left_over[wanted.count :])
    return tuple(sorted(left_over, reverse=True))
