"""The objects of one assignment: how it is taken apart, and what is told of all together."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model.placement import Assignment, AssignmentState, ObservedPhase, Variant, Version, WorkloadHealth
from services.dispatcher.core.parts import parts, together
from services.dispatcher.core.steps import Done

APPLIED, PENDING, GONE = ObservedPhase.APPLIED, ObservedPhase.PENDING, ObservedPhase.GONE


def order(state: AssignmentState = AssignmentState.ACTIVE, **counts: int) -> Assignment:
    variants = tuple(
        Variant(name, f"llm-{name}", (("main", count),), ({"op": name},)) for name, count in counts.items()
    )
    return Assignment(
        "test/Deployment/llm",
        "c",
        Version(1, 1),
        state,
        components=(("main", 2),),
        preserve_on_deletion=True,
        variants=variants,
    )


def test_an_assignment_without_variants_is_one_object() -> None:
    (only,) = parts(order())
    assert (only.name, only.order, only.emptied) == ("llm", order(), False)


def test_each_variant_is_an_order_of_its_own() -> None:
    first, second, empty = parts(order(acs=3, ecs=0))
    assert (first.name, first.order.components, first.order.variants) == ("llm", (("main", 2),), ())
    assert (second.name, second.order.components, second.order.patches) == ("llm-acs", (("main", 3),), ({"op": "acs"},))
    assert (empty.emptied, empty.order.state) == (True, AssignmentState.REMOVING)
    assert not empty.order.preserve_on_deletion  # an emptied unit leaves nothing behind


def test_the_workloads_own_object_is_removed_last() -> None:
    found = parts(order(AssignmentState.REMOVING, acs=0, ecs=2))
    assert [(p.name, p.emptied) for p in found] == [("llm-acs", False), ("llm-ecs", False), ("llm", False)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Done(APPLIED, ready=2), Done(APPLIED, ready=3), (APPLIED, 5, "")),
        (Done(APPLIED, ready=2), Done(PENDING, message="waits"), (PENDING, 2, "waits")),
        (Done(APPLIED, ready=2), Done(ObservedPhase.REFUSED, message="no"), (ObservedPhase.REFUSED, 2, "no")),
        (Done(GONE), Done(GONE), (GONE, 0, "")),
    ],
)
def test_the_worst_phase_counts_and_ready_pods_add_up(first: Done, second: Done, expected: Any) -> None:
    done = together(list(zip(parts(order(acs=3)), (first, second), strict=True)))
    assert (done.phase, done.ready, done.message) == expected


def test_an_emptied_unit_that_is_gone_says_nothing() -> None:
    healthy = Done(APPLIED, WorkloadHealth.HEALTHY, ready=2, object_uid="u", status={"replicas": 2, "x": 1})
    done = together(list(zip(parts(order(acs=0)), (healthy, Done(GONE)), strict=True)))
    assert (done.phase, done.health, done.ready) == (APPLIED, WorkloadHealth.HEALTHY, 2)


def test_status_and_health_are_of_all() -> None:
    healthy = Done(APPLIED, WorkloadHealth.HEALTHY, ready=2, object_uid="u", status={"replicas": 2, "x": 1})
    other = Done(APPLIED, WorkloadHealth.PROGRESSING, ready=1, status={"replicas": 3, "readyReplicas": 1, "x": 5})
    done = together(list(zip(parts(order(acs=3)), (healthy, other), strict=True)))
    assert done.health is WorkloadHealth.PROGRESSING
    assert done.object_uid == "u"
    assert done.status == {"replicas": 5, "readyReplicas": 1, "x": 1}
