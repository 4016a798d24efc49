"""How a workload ranks, and whether it may take the place of others: by its PriorityClass (specification 14)."""

from __future__ import annotations

from collections.abc import Mapping

from gpufleet.model.policy import PriorityClass
from gpufleet.model.workload import Workload

# Every Kubernetes cluster has these, whether the fleet is told of them or not.
_SYSTEM = {
    name: PriorityClass(name, value)
    for name, value in (("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000))
}


def ranks(workload: Workload) -> bool:
    """Returns whether a workload ranks by itself, without any PriorityClass of the fleet."""
    return workload.priority is not None or workload.priority_class in _SYSTEM


def priority(workload: Workload, classes: Mapping[str, PriorityClass]) -> int:
    """Returns a workload's priority (specification 14).

    The value of the class that ranks it as a whole, if that class exists, else the literal priority of its template,
    else the global default, else 0.
    """
    if not classes and not workload.priority_class:
        return workload.priority or 0
    named = _class_of(workload, classes)
    if named is not None:
        return named.value
    return workload.priority or 0


def preempts(workload: Workload, classes: Mapping[str, PriorityClass]) -> bool:
    """Returns whether a workload may take the place of others: unless its class says `preemptionPolicy: Never`."""
    named = _class_of(workload, classes)
    return named is None or named.preempts


def _class_of(workload: Workload, classes: Mapping[str, PriorityClass]) -> PriorityClass | None:
    """Returns the class that ranks a workload, or None; of several global defaults the lowest, as in Kubernetes."""
    named = classes.get(workload.priority_class) or _SYSTEM.get(workload.priority_class)
    if named is not None or workload.priority is not None:
        return named
    if not workload.priority_class:
        for component in workload.components:
            known = classes.get(component.priority_class)
            if known is not None and component.name != "Master":
                return known
    return min((c for c in classes.values() if c.global_default), key=lambda c: c.value, default=None)
