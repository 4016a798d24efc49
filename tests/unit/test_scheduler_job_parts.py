"""A batch Job that a policy divides: parallelism and completions, and what becomes of its parts."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model import kinds
from gpufleet.model.placement import FailureClass, ObservedPhase, WorkloadHealth
from gpufleet.model.policy import ClusterAffinity, DivisionType, PriorityClass, PropagationPolicy, StaticWeight
from gpufleet.model.reasons import Verdict
from gpufleet.model.workload import Workload
from services.dispatcher.core.render import render
from services.scheduler.core.events import ClusterRemoved, PolicyChanged, RescheduleRequested, Scaled, WorkloadDeleted
from services.scheduler.core.settings import Settings
from tests.support import manifests
from tests.support.scheduling import World, deployment, policy

X = "test/Job/x"


def batch(parallelism: int = 6, completions: int | None = 60, **spec: Any) -> Workload:
    manifest = manifests.job()
    manifest["spec"] = {**manifest["spec"], "parallelism": parallelism, "completions": completions, **spec}
    if completions is None:
        del manifest["spec"]["completions"]
    return kinds.interpret(manifest)


def jobs(*groups: list[str], division: DivisionType = DivisionType.DYNAMIC, **rest: Any) -> PropagationPolicy:
    return policy(*groups, division=division, kinds=[("batch/v1", "Job")], **rest)


def running(job: Workload, rule: PropagationPolicy, **clusters: int) -> World:
    world = World(Settings(stale_after=1e9))
    world.clusters(**clusters)
    world.submit(job, rule)
    return world


def parts(world: World) -> dict[str, tuple[int, int | None]]:
    """Parallelism and completions of the Job in each cluster, as the dispatcher writes it."""
    found = {}
    for cluster, state in world.states(X).items():
        if state == "Active":
            spec = render(world.assignment(X, cluster))["spec"]
            found[cluster] = (spec["parallelism"], spec.get("completions"))
    return found


WEIGHTS = tuple(StaticWeight(ClusterAffinity(cluster_names=(name,)), weight) for name, weight in (("a", 1), ("b", 2)))


@pytest.mark.parametrize(
    ("job", "rule", "clusters", "expected"),
    [
        (batch(), jobs(), {"a": 4, "b": 8}, {"a": (2, 20), "b": (4, 40)}),
        (batch(6, 7), jobs(), {"a": 4, "b": 8}, {"a": (2, 2), "b": (4, 5)}),
        (batch(6, None), jobs(), {"a": 4, "b": 8}, {"a": (2, None), "b": (4, None)}),
        (batch(), jobs(division=DivisionType.AGGREGATED), {"a": 4, "b": 8}, {"b": (6, 60)}),
        (batch(), jobs(division=DivisionType.AGGREGATED), {"a": 3, "b": 4}, {"a": (3, 30), "b": (3, 30)}),
        (batch(), jobs(["a"], ["b"]), {"a": 4, "b": 8}, {"a": (4, 40), "b": (2, 20)}),
        (
            batch(),
            jobs(division=DivisionType.STATIC, static_weights=WEIGHTS),
            {"a": 9, "b": 9},
            {"a": (2, 20), "b": (4, 40)},
        ),
        # In one cluster as a whole: copies, gangs, and indexes that would repeat.
        (batch(), jobs(division=DivisionType.DUPLICATED), {"a": 6, "b": 8}, {"a": (6, 60)}),
        (batch(), jobs(gang=True), {"a": 6, "b": 8}, {"a": (6, 60)}),
        (batch(completionMode="Indexed"), jobs(), {"a": 6, "b": 8}, {"a": (6, 60)}),
    ],
)
def test_parallelism_and_completions(
    job: Workload, rule: PropagationPolicy, clusters: dict[str, int], expected: dict[str, tuple[int, int | None]]
) -> None:
    assert parts(running(job, rule, **clusters)) == expected


def test_all_of_it_starts_or_none() -> None:
    world = running(batch(), jobs(), a=2, b=3)
    assert (parts(world), world.placement(X).verdict) == ({}, Verdict.UNSCHEDULABLE)


def test_parts_stay_as_they_are() -> None:
    world = running(batch(), jobs(), a=4, b=8)
    before = parts(world)
    world.feed(RescheduleRequested(X), Scaled(X, 3))
    world.clusters(c=90)
    assert parts(world) == before
    out = world.restart()
    assert (parts(world), out.assignments) == (before, [])


@pytest.mark.parametrize(
    ("rule", "completions", "parallelism", "expected"),
    [
        # The difference goes where there is room beside a part, in proportion to it: 2 and 4 have 2 and 4 left.
        (jobs(), 60, 9, {"a": (3, 20), "b": (6, 40)}),
        (jobs(["a"], ["b"]), 60, 9, {"a": (4, 40), "b": (5, 20)}),
        (jobs(division=DivisionType.STATIC, static_weights=WEIGHTS), 60, 12, {"a": (4, 20), "b": (8, 40)}),
        # Not all of it fits, so none of it starts.
        (jobs(), 60, 13, {"a": (2, 20), "b": (4, 40)}),
        # Shrunk in proportion, or the lowest group first; a part without a pod would never be completed.
        (jobs(), 60, 4, {"a": (1, 20), "b": (3, 40)}),
        (jobs(["a"], ["b"]), 60, 5, {"a": (4, 40), "b": (1, 20)}),
        (jobs(["a"], ["b"]), 60, 3, {"a": (2, 40), "b": (1, 20)}),
        (jobs(), 60, 1, {"a": (1, 20), "b": (1, 40)}),
        # A work queue has no completions, so its parallelism is divided as replicas are.
        (jobs(), None, 9, {"a": (3, None), "b": (6, None)}),
        (jobs(), None, 3, {"a": (1, None), "b": (2, None)}),
        (jobs(["a"], ["b"]), None, 3, {"a": (3, None)}),
    ],
)
def test_a_change_of_parallelism(
    rule: PropagationPolicy, completions: int | None, parallelism: int, expected: dict[str, tuple[int, int | None]]
) -> None:
    world = running(batch(6, completions), rule, a=4, b=8)
    world.submit(batch(parallelism, completions))
    assert parts(world) == expected
    world.restart()
    world.feed(RescheduleRequested(X))
    assert parts(world) == expected


def test_more_parallelism_goes_to_no_cluster_without_a_part() -> None:
    world = running(batch(), jobs(), a=4, b=8)
    world.clusters(c=90)
    world.submit(batch(13))
    assert parts(world) == {"a": (2, 20), "b": (4, 40)}
    assert (world.placement(X).verdict, world.placement(X).unplaced) == (Verdict.PARTIALLY_SCHEDULED, 7)
    assert world.codes(X)["c"] == "JobDivided"
    world.clusters(a=9)
    assert parts(world) == {"a": (6, 20), "b": (7, 40)}
    assert world.placement(X).verdict is Verdict.SCHEDULED
    # A work queue may have further parts.
    world = running(batch(6, None), jobs(), a=4, b=8)
    world.clusters(c=30)
    world.submit(batch(13, None))
    assert sum(count for count, _ in parts(world).values()) == 13
    assert set(parts(world)) == {"a", "b", "c"}


@pytest.mark.parametrize(("parallelism", "expected"), [(7, 7), (9, 6), (2, 2)])
def test_a_job_in_one_cluster_keeps_all_of_its_completions(parallelism: int, expected: int) -> None:
    world = running(batch(), jobs(), a=8)
    assert parts(world) == {"a": (6, 60)}
    world.clusters(b=90)
    world.submit(batch(parallelism))
    assert parts(world) == {"a": (expected, 60)}


def test_a_lost_part_is_placed_anew_and_the_others_run_on() -> None:
    world = running(batch(), jobs(), a=4, b=8)
    world.clusters(c=9)
    assert parts(world) == {"a": (2, 20), "b": (4, 40)}
    world.feed(ClusterRemoved("a"))
    assert parts(world) == {"b": (4, 40), "c": (2, 20)}
    # And what is asked for beyond it goes where it goes.
    world.feed(ClusterRemoved("c"))
    world.submit(batch(8))
    assert parts(world) == {"b": (4, 40)}
    world.clusters(d=9)
    assert parts(world) == {"b": (4, 40), "d": (4, 20)}


def test_a_part_that_is_lost_while_parallelism_is_below_the_parts_is_placed_anew() -> None:
    world = running(batch(), jobs(), a=4, b=8)
    world.submit(batch(1))
    assert parts(world) == {"a": (1, 20), "b": (1, 40)}
    assert (world.placement(X).replicas, world.placement(X).verdict) == (2, Verdict.SCHEDULED)
    world.feed(ClusterRemoved("a"))
    assert parts(world) == {"b": (1, 40)}
    assert world.placement(X).verdict is Verdict.PARTIALLY_SCHEDULED
    world.clusters(c=2)
    assert parts(world) == {"b": (1, 40), "c": (1, 20)}


def test_a_lost_part_goes_to_another_group_where_its_own_has_no_cluster_left() -> None:
    rule = jobs(["a", "b"], ["c"], division=DivisionType.AGGREGATED)
    world = running(batch(), rule, a=3, b=3, c=4)
    assert parts(world) == {"a": (3, 30), "b": (3, 30)}
    world.feed(ClusterRemoved("a"))
    assert parts(world) == {"b": (3, 30), "c": (3, 30)}
    world.clusters(c=9)
    world.submit(batch(8))
    assert parts(world) == {"b": (3, 30), "c": (5, 30)}


def test_a_divided_job_takes_nobodys_place_where_it_has_no_part() -> None:
    world = running(batch(), jobs(), a=4, b=8)
    world.feed(PolicyChanged(PriorityClass("low", -5)))
    world.clusters(c=9)
    world.submit(deployment("victim", 9, priority_class="low"), policy(["c"], name="low"))
    world.submit(batch(20))
    assert parts(world) == {"a": (2, 20), "b": (4, 40)}
    assert world.assigned("test/Deployment/victim") == {"c": 9}


def test_a_lost_part_waits_for_its_copy_to_be_gone() -> None:
    world = running(batch(), jobs(), a=4, b=8)
    world.clusters(c=9)
    world.observed(X, "a", ObservedPhase.REFUSED, WorkloadHealth.UNKNOWN, message="no")
    assert world.states(X) == {"a": "Removing", "b": "Active", "c": "Waiting"}
    world.gone(X, "a")
    assert parts(world) == {"b": (4, 40), "c": (2, 20)}


def test_it_is_finished_when_every_part_is() -> None:
    world = running(batch(), jobs(), a=4, b=8)
    world.observed(X, "a", health=WorkloadHealth.SUCCEEDED)
    assert world.placement(X).verdict is Verdict.SCHEDULED
    world.observed(X, "b", health=WorkloadHealth.SUCCEEDED)
    assert world.placement(X).verdict is Verdict.FINISHED


def test_it_has_failed_when_a_part_has() -> None:
    world = running(batch(), jobs(), a=4, b=8)
    world.observed(X, "b", health=WorkloadHealth.PROGRESSING)
    world.observed(X, "a", health=WorkloadHealth.FAILED, failure=FailureClass.USER)
    assert world.placement(X).verdict is Verdict.FAILED


def test_deleting_it_removes_every_part() -> None:
    world = running(batch(), jobs(), a=4, b=8)
    world.feed(WorkloadDeleted(X))
    assert world.states(X) == {"a": "Removing", "b": "Removing"}
