"""What the kubelet reserves for a pod, from what its containers ask for.

The arithmetic is that of Kubernetes' `PodRequests` (k8s.io/component-helpers/resource): amounts by resource, in the
units of `gpufleet.model.quantity`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpufleet.model.resources import Resources, resources

Amounts = Mapping[str, int]


def add(*many: Amounts) -> dict[str, int]:
    """Returns the sum by resource."""
    total: dict[str, int] = {}
    for amounts in many:
        for name, amount in amounts.items():
            total[name] = total.get(name, 0) + amount
    return total


def of_pod(
    containers: Iterable[Amounts],
    init_containers: Iterable[tuple[Amounts, bool]] = (),
    *,
    pod: Amounts | None = None,
    overhead: Amounts | None = None,
) -> Resources:
    """Returns the requests of a pod, with the one pod place that it takes.

    The sum of the containers and of the init containers that keep running (the flag: restartPolicy Always), or the
    largest moment of initialisation where that is more; ``pod``, what the pod asks for as a whole (`spec.resources`),
    takes the place of that; plus the overhead.
    """
    sidecars: dict[str, int] = {}
    highest: dict[str, int] = {}
    for amounts, keeps_running in init_containers:
        moment = add(sidecars, amounts)
        if keeps_running:
            sidecars = moment
        highest = _most(highest, moment)
    total = _most(add(*containers, sidecars), highest)
    return one_pod(add({**total, **(pod or {})}, overhead or {}))


def one_pod(amounts: Amounts) -> Resources:
    """Returns requests of one pod, which also takes one of a node's pod places."""
    return resources({**amounts, "pods": 1})


def _most(one: Amounts, other: Amounts) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def bounded_by(key: str) -> str:
    """Returns which resource of pods' requests a key of a ResourceQuota bounds; empty if none.

    ``requests.cpu`` and ``cpu`` are the same; what bounds limits, or counts other objects than pods, is not meant.
    """
    if key in ("pods", "count/pods"):
        return "pods"
    if key.startswith(("limits.", "count/")) or ".storageclass." in key:
        return ""
    name = key.removeprefix("requests.")
    known = name in ("cpu", "memory", "ephemeral-storage") or "/" in name or name.startswith("hugepages-")
    return name if known else ""
