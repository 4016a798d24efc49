"""The objects of one assignment in its cluster: the one that bears the workload's name, and those of further units.

Each is worked on as if it were an assignment of its own; what became of them is told as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpufleet.model.placement import Assignment, AssignmentState, ObservedPhase, WorkloadHealth
from services.dispatcher.core.steps import Done

# Worst first.
_HEALTH = (
    WorkloadHealth.FAILED,
    WorkloadHealth.UNHEALTHY,
    WorkloadHealth.PROGRESSING,
    WorkloadHealth.UNKNOWN,
    WorkloadHealth.HEALTHY,
    WorkloadHealth.SUCCEEDED,
)
_PHASES = (ObservedPhase.REFUSED, ObservedPhase.PENDING, ObservedPhase.APPLIED, ObservedPhase.GONE)


@dataclass(frozen=True, slots=True)
class Part:
    """One object: its name, and the work order for it alone. ``emptied``: it is to go although the others stay."""

    name: str
    order: Assignment
    emptied: bool = False


def parts(assignment: Assignment) -> tuple[Part, ...]:
    """Returns the objects of an assignment in the order in which they are worked on: what has to go first, first."""
    name = assignment.workload.rpartition("/")[2]
    first = Part(name, replace(assignment, variants=()) if assignment.variants else assignment)
    if not assignment.variants:
        return (first,)
    removing = assignment.state is AssignmentState.REMOVING
    others = []
    for variant in assignment.variants:
        order = replace(
            assignment,
            components=variant.components,
            patches=variant.patches,
            overrides=variant.overrides,
            variants=(),
        )
        emptied = not removing and not any(count for _, count in variant.components)
        if emptied:
            order = replace(order, state=AssignmentState.REMOVING, orphan=False, preserve_on_deletion=False)
        others.append(Part(variant.name, order, emptied))
    # The workload's own object is removed last, so that Gone means that all are gone.
    return (*others, first) if removing else (first, *others)


def together(found: Sequence[tuple[Part, Done]]) -> Done:
    """Returns what became of an assignment from what became of its objects."""
    if len(found) == 1:
        return found[0][1]
    first = next(done for part, done in found if part.order.workload.endswith(f"/{part.name}"))
    counted = [done for part, done in found if not (part.emptied and done.phase is ObservedPhase.GONE)]
    worst = min(counted, key=lambda done: _PHASES.index(done.phase))
    if worst.phase is not ObservedPhase.APPLIED:
        return replace(worst, ready=sum(done.ready for done in counted), object_uid=first.object_uid)
    sick = min(counted, key=lambda done: _HEALTH.index(done.health))
    return replace(
        sick,
        ready=sum(done.ready for done in counted),
        object_uid=first.object_uid,
        status=_added([first, *(done for done in counted if done is not first)]),
    )


def _added(dones: Sequence[Done]) -> dict[str, Any]:
    """Returns the first status with the replicas of the others added to its own."""
    status = dict(dones[0].status)
    for done in dones[1:]:
        for key, value in done.status.items():
            if key.lower().endswith("replicas") and isinstance(value, int):
                known = status.get(key, 0)
                status[key] = (known if isinstance(known, int) else 0) + value
    return status
