"""What moves, when, and how often (specification 7)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model.cluster import ComponentPods, Health, Inventory, WorkloadPods
from gpufleet.model.placement import (
    ClusterShare,
    Eviction,
    FailureClass,
    Observation,
    ObservedPhase,
    Placement,
    Slot,
    Source,
    Version,
    WorkloadHealth,
)
from gpufleet.model.reasons import Code, Reason, Verdict
from services.rescheduler.core import Limits, State, decide
from services.rescheduler.core import events as ev

LLM = "test/Deployment/llm"
JOB = "test/PyTorchJob/train"


def placement(
    workload: str = LLM, version: int = 1, *, job: bool = False, redispatch: bool = False, **shares: int
) -> Placement:
    return Placement(
        workload=workload,
        version=Version(1, version),
        verdict=Verdict.SCHEDULED,
        replicas=sum(shares.values()),
        shares=tuple(ClusterShare(name, (("main", count),)) for name, count in sorted(shares.items())),
        job=job,
        movable=True,
        redispatch_user_failures=redispatch,
    )


def pods(
    workload: str, cluster: str, *, bound: int = 0, since: tuple[float, ...] = (), provisioning: int = 0
) -> ev.PodsChanged:
    main = ComponentPods(bound=bound, unschedulable=since, provisioning=provisioning)
    return ev.PodsChanged(cluster, workload, WorkloadPods(cluster, workload, components=(("main", main),)))


def placed(found: Placement) -> ev.PlacementChanged:
    return ev.PlacementChanged(found.workload, found)


def failed(workload: str, cluster: str, failure: FailureClass, version: int = 1) -> ev.Observed:
    seen = Observation(
        workload, cluster, Version(1, version), ObservedPhase.APPLIED, health=WorkloadHealth.FAILED, failure=failure
    )
    return ev.Observed(cluster, workload, seen)


def start(*events: ev.Event, limits: Limits | None = None) -> State:
    state = State(limits=limits or Limits())
    out = decide(state, events, 0.0)
    assert out.evictions == []
    return state


@pytest.mark.parametrize(("since", "moves"), [(91.0, False), (90.0, False), (89.0, True)])
def test_a_pod_pending_for_29_seconds_stays_and_for_31_moves_at_the_check(since: float, moves: bool) -> None:
    state = start(placed(placement(a=3)), pods(LLM, "a", bound=1, since=(since, since)))
    out = decide(state, [], 120.0)
    assert bool(out.evictions) is moves
    if moves:
        [cap] = out.evictions[0].caps
        assert (cap.cluster, cap.max_replicas, cap.code) == ("a", 1, "PendingTooLong")
        assert cap.until == 120.0 + 300.0
        assert out.evictions[0].judged == Version(1, 1)


@pytest.mark.parametrize(("at", "moves"), [(120.0, False), (360.0, True)])
def test_a_preemptor_waits_for_its_victims_to_stop(at: float, moves: bool) -> None:
    found = replace(placement(a=3), reasons=(Reason(Code.PREEMPTS, "", "a"),), decided_at=60.0)
    state = start(placed(found), pods(LLM, "a", bound=1, since=(61.0, 61.0)))
    assert bool(decide(state, [], at).evictions) is moves


def test_pods_are_looked_at_every_two_minutes_and_the_clock_is_asked_for_only_if_something_is_pending() -> None:
    state = start(placed(placement(a=2)))
    assert decide(state, [], 1.0).wake_at is None
    assert decide(state, [pods(LLM, "a", since=(1.0,))], 1.0).wake_at == 120.0
    assert decide(state, [], 60.0).evictions == []
    assert len(decide(state, [], 120.0).evictions) == 1


def test_only_the_pods_over_the_threshold_move() -> None:
    state = start(placed(placement(a=4)), pods(LLM, "a", bound=1, since=(10.0, 20.0, 100.0)))
    [eviction] = decide(state, [], 120.0).evictions
    assert eviction.caps[0].max_replicas == 2


def test_bound_pods_are_never_taken() -> None:
    state = start(placed(placement(a=3)), pods(LLM, "a", bound=2, since=(0.0, 0.0, 0.0)))
    [eviction] = decide(state, [], 120.0).evictions
    assert eviction.caps[0].max_replicas == 2


def test_pods_that_wait_for_a_node_do_not_move() -> None:
    state = start(placed(placement(a=3)), pods(LLM, "a", bound=1, provisioning=2))
    assert decide(state, [], 120.0).evictions == []


def test_what_is_not_divided_by_availability_does_not_move() -> None:
    fixed = Placement(LLM, Version(1, 1), Verdict.SCHEDULED, 2, (ClusterShare("a", (("main", 2),)),))
    state = start(placed(fixed), pods(LLM, "a", since=(0.0, 0.0)))
    out = decide(state, [], 120.0)
    assert out.evictions == [] and out.wake_at is None


def test_an_eviction_is_said_once_per_placement_version() -> None:
    state = start(placed(placement(a=3)), pods(LLM, "a", bound=1, since=(0.0, 0.0)))
    assert len(decide(state, [], 120.0).evictions) == 1
    assert decide(state, [pods(LLM, "a", bound=1, since=(0.0,))], 240.0).evictions == []


def test_the_next_move_of_a_workload_waits_for_its_back_off() -> None:
    limits = Limits(check_every=1.0, pending_after=1.0)
    state = start(placed(placement(a=3)), pods(LLM, "a", since=(0.0,)), limits=limits)
    assert len(decide(state, [], 2.0).evictions) == 1
    moved = placement(version=2, a=2, b=1)
    decide(state, [placed(moved), pods(LLM, "a", bound=2), pods(LLM, "b", since=(2.5,))], 3.0)
    assert decide(state, [], 11.0).evictions == []
    [second] = decide(state, [], 12.0).evictions
    assert second.attempts == 2
    assert {c.cluster: c.max_replicas for c in second.caps} == {"a": 2, "b": 0}, "the earlier cap still holds"


def test_a_job_that_cannot_start_is_taken_back_whole() -> None:
    job = Placement(
        JOB,
        Version(1, 1),
        Verdict.SCHEDULED,
        3,
        (ClusterShare("a", (("Master", 1), ("Worker", 2))),),
        job=True,
        movable=True,
    )
    waiting = WorkloadPods(
        "a",
        JOB,
        components=(("Master", ComponentPods(bound=1)), ("Worker", ComponentPods(bound=1, unschedulable=(0.0,)))),
    )
    state = start(placed(job), ev.PodsChanged("a", JOB, waiting))
    [eviction] = decide(state, [], 120.0).evictions
    assert (eviction.caps[0].max_replicas, eviction.caps[0].code) == (0, "StartFailed")
    assert eviction.history[0].cluster == "a" and eviction.history[0].end == 120.0


@pytest.mark.parametrize(
    ("failure", "redispatch", "code"),
    [
        (FailureClass.INFRASTRUCTURE, False, "InfrastructureFailure"),
        (FailureClass.START, False, "StartFailed"),
        (FailureClass.USER, True, "JobFailed"),
        (FailureClass.USER, False, None),
        (FailureClass.NONE, True, None),
    ],
)
def test_which_failures_of_a_job_send_it_elsewhere(failure: FailureClass, redispatch: bool, code: str | None) -> None:
    state = start(placed(placement(JOB, job=True, redispatch=redispatch, a=2)))
    out = decide(state, [failed(JOB, "a", failure)], 5.0)
    assert [e.caps[0].code for e in out.evictions] == ([code] if code else [])


def test_an_old_failure_does_not_count_again_when_the_job_returns() -> None:
    state = start(placed(placement(JOB, job=True, a=2)))
    assert len(decide(state, [failed(JOB, "a", FailureClass.INFRASTRUCTURE)], 5.0).evictions) == 1
    assert decide(state, [placed(placement(JOB, 2, job=True, a=2))], 100.0).evictions == []
    again = decide(state, [failed(JOB, "a", FailureClass.INFRASTRUCTURE, version=2)], 100.0)
    assert len(again.evictions) == 1


def test_a_job_is_given_up_after_three_redispatches() -> None:
    state = start()
    now = 0.0
    for attempt in range(1, 5):
        now += 1000.0
        events: list[ev.Event] = [
            placed(placement(JOB, attempt, job=True, a=2)),
            failed(JOB, "a", FailureClass.INFRASTRUCTURE, attempt),
        ]
        [eviction] = decide(state, events, now).evictions
        assert eviction.attempts == attempt
        assert eviction.give_up is (attempt == 4)
    again: list[ev.Event] = [placed(placement(JOB, 5, job=True, a=2)), failed(JOB, "a", FailureClass.INFRASTRUCTURE, 5)]
    assert decide(state, again, now + 1000).evictions == []


def test_the_back_off_of_a_job_doubles_up_to_five_minutes() -> None:
    state = start(limits=Limits(max_redispatch=100))
    waits = []
    now = 0.0
    for attempt in range(1, 9):
        now += 1000.0
        events: list[ev.Event] = [
            placed(placement(JOB, attempt, job=True, a=2)),
            failed(JOB, "a", FailureClass.INFRASTRUCTURE, attempt),
        ]
        [eviction] = decide(state, events, now).evictions
        waits.append(eviction.not_before - now)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]


def lost(cluster: str) -> ev.ClusterChanged:
    return ev.ClusterChanged(cluster, Inventory(cluster, health=Health.UNREACHABLE))


def test_a_lost_cluster_gives_up_its_replicas_and_only_that_cluster() -> None:
    state = start(placed(placement(a=2, b=2)), placed(placement("test/Deployment/other", b=1)))
    out = decide(state, [lost("a")], 5.0)
    [eviction] = out.evictions
    assert eviction.workload == LLM
    assert [(c.cluster, c.max_replicas, c.code) for c in eviction.caps] == [("a", 0, "ClusterUnreachable")]


def test_a_cluster_that_returns_does_not_move_anything() -> None:
    state = start(placed(placement(b=2)), lost("a"))
    assert decide(state, [ev.ClusterChanged("a", Inventory("a"))], 5.0).evictions == []


def test_the_fleet_wide_rate_holds_moves_back_and_they_come_later() -> None:
    workloads = [f"test/Deployment/w{i}" for i in range(3)]
    state = start(*(placed(placement(w, a=1)) for w in workloads), limits=Limits(moves_per_minute=2))
    out = decide(state, [lost("a")], 5.0)
    assert [e.workload for e in out.evictions] == workloads[:2]
    assert out.held_back == 1
    assert out.wake_at == 65.0
    assert [e.workload for e in decide(state, [], 65.0).evictions] == workloads[2:]


def test_nothing_moves_while_frozen_and_it_is_made_up_for_afterwards() -> None:
    state = start(placed(placement(a=2)), ev.FreezeChanged(True))
    out = decide(state, [lost("a"), pods(LLM, "a", since=(0.0,))], 120.0)
    assert out.evictions == [] and out.wake_at is None
    assert len(decide(state, [ev.FreezeChanged(False)], 130.0).evictions) == 1


def test_after_a_restart_what_was_said_already_is_not_said_again() -> None:
    first = start(placed(placement(a=2)))
    [eviction] = decide(first, [lost("a")], 5.0).evictions
    fresh = State()
    out = decide(fresh, [placed(placement(a=2)), lost("a"), ev.EvictionRead(LLM, eviction)], 6.0)
    assert out.evictions == []


def test_an_older_placement_record_is_ignored() -> None:
    state = start(placed(placement(version=2, b=2)))
    decide(state, [placed(placement(version=1, a=2))], 1.0)
    assert decide(state, [lost("a")], 2.0).evictions == []


def test_an_older_tombstone_is_ignored() -> None:
    state = start(placed(placement(version=2, a=2)))
    decide(state, [lost("a")], 5.0)
    assert decide(state, [ev.PlacementChanged(LLM, None, Version(1, 1))], 6.0).forget == []
    assert state.tracked[LLM].placement is not None
    assert decide(state, [ev.PlacementChanged(LLM, None, Version(1, 3))], 7.0).forget == [LLM]


def test_the_word_about_a_workload_that_is_gone_is_tombstoned() -> None:
    state = start(placed(placement(a=2)))
    decide(state, [lost("a")], 5.0)
    out = decide(state, [ev.PlacementChanged(LLM, None)], 6.0)
    assert out.forget == [LLM]
    assert LLM not in state.tracked
    orphan = Eviction("test/Deployment/x", Version(1, 1))
    assert decide(state, [ev.EvictionRead(orphan.workload, orphan)], 7.0).forget == [orphan.workload]


@pytest.mark.parametrize(
    "told, code, text",
    [
        ({}, "PendingTooLong", "2 of 4 pods unschedulable for more than 30 s"),
        ({"no_stock": True}, "ProvisioningFailed", "…; no stock for the nodes that they need"),
        ({"timed_out": 2}, "ProvisioningFailed", "…; 2 waited for nodes that did not come"),
        ({"timed_out": 1, "no_stock": True}, "ProvisioningFailed", "…; 1 waited for nodes that did not come"),
    ],
)
def test_pods_whose_nodes_did_not_come_name_the_node_classes(told: dict[str, Any], code: str, text: str) -> None:
    slots = (Slot("main", "x", 2, Source.ELASTIC), Slot("main", "old", 1), Slot("main", "y", 1, Source.ELASTIC))
    found = replace(placement(a=4), shares=(ClusterShare("a", (("main", 4),), slots),))
    for bound, classes in ((1, ("x", "y")), (2, ("x", "y")), (3, ("y",))):
        main = ComponentPods(bound=bound, unschedulable=(1.0, 2.0), **told)
        state = start(placed(found), ev.PodsChanged("a", LLM, WorkloadPods("a", LLM, components=(("main", main),))))
        [eviction] = decide(state, [], 120.0).evictions
        # Pods that are unschedulable for another reason say nothing about nodes.
        assert (eviction.caps[0].code, eviction.caps[0].node_classes) == (code, classes if told else ())
        assert eviction.caps[0].message == text.replace("…", "2 of 4 pods unschedulable for more than 30 s")


def test_a_job_that_could_not_start_names_them_too_and_is_sent_elsewhere_as_ever() -> None:
    share = ClusterShare("a", (("main", 2),), (Slot("main", "x", 2, Source.ELASTIC),))
    found = replace(placement(JOB, job=True, a=2), shares=(share,))
    main = ComponentPods(unschedulable=(1.0, 1.0), timed_out=2)
    state = start(placed(found), ev.PodsChanged("a", JOB, WorkloadPods("a", JOB, components=(("main", main),))))
    [eviction] = decide(state, [], 120.0).evictions
    assert (eviction.caps[0].code, eviction.caps[0].node_classes) == ("StartFailed", ("x",))
