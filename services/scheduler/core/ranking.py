"""How a workload ranks, and whether it may take the place of others: by its PriorityClass (specification 14)."""

from __future__ import annotations

from collections.abc import Mapping

from gpufleet.model.policy import PriorityClass
from gpufleet.model.workload import Workload


def priority(workload: Workload, classes: Mapping[str, PriorityClass]) -> int:
    """Returns a workload's priority (specification 14).

    The value of the class that ranks it as a whole, if that class exists, else the literal priority of its template,
    else the global default, else 0.
    """
    if not classes:
        return workload.priority or 0
    named = classes.get(workload.priority_class)
    if named is not None:
        return named.value
    if workload.priority is not None:
        return workload.priority
    if not workload.priority_class:
        for component in workload.components:
            known = classes.get(component.priority_class)
            if known is not None and component.name != "Master":
                return known.value
    return max((c.value for c in classes.values() if c.global_default), default=0)


def preempts(workload: Workload, classes: Mapping[str, PriorityClass]) -> bool:
    """Returns whether a workload may take the place of others: unless its class says `preemptionPolicy: Never`."""
    named = classes.get(workload.priority_class)
    if named is not None:
        return named.preempts
    if workload.priority is not None:
        return True
    if not workload.priority_class:
        for component in workload.components:
            known = classes.get(component.priority_class)
            if known is not None and component.name != "Master":
                return known.preempts
    default = max((c for c in classes.values() if c.global_default), key=lambda c: c.value, default=None)
    return default is None or default.preempts
