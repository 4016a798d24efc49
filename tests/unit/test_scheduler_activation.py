"""Lazy policies, and policies of other schedulers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpufleet.model.policy import DivisionType, PriorityClass, ResourceSelector
from gpufleet.model.reasons import Verdict
from services.scheduler.core.events import ClusterRemoved, PolicyChanged, PolicyRemoved, Scaled, WorkloadSubmitted
from services.scheduler.core.settings import Settings
from tests.support.scheduling import World, deployment, policy

LLM = "test/Deployment/llm"


def placed() -> World:
    """Two replicas in cluster a, by a policy whose next edition is lazy and means cluster b."""
    world = World(Settings(stale_after=1e9))
    world.clusters(a=2, b=9)
    world.submit(deployment(replicas=2), policy(["a"], lazy=True))
    assert world.assigned(LLM) == {"a": 2}
    world.feed(PolicyChanged(policy(["b"], version=2, lazy=True, conflict_overwrite=True)))
    return world


def test_an_edition_counts_from_the_next_submission_on() -> None:
    world = placed()
    assert world.assigned(LLM) == {"a": 2}
    assert not world.assignment(LLM, "a").conflict_overwrite
    world.submit(deployment(replicas=2))
    assert world.assigned(LLM) == {"a": 2}, "the same again is no change"
    world.submit(deployment(replicas=3))
    assert world.assigned(LLM) == {"b": 3}
    assert world.assignment(LLM, "b").conflict_overwrite


def test_an_edition_ranks_from_the_next_submission_on() -> None:
    world = World(Settings(stale_after=1e9))
    world.clusters(a=1)
    world.feed(PolicyChanged(PriorityClass("high", 10)))
    world.submit(deployment("early", 2, arrival=1), policy(["a"], lazy=True, gang=True))
    late = deployment("late", 2, arrival=2)
    world.submit(late, policy(["a"], lazy=True, gang=True, version=2, priority_class="high"))
    keys = ("test/Deployment/early", "test/Deployment/late")
    assert [world.placement(key).priority for key in keys] == [0, 10]
    world.restart()
    assert [world.placement(key).priority for key in keys] == [0, 10]
    assert world.state.queue.line("").first == (-10, 2, late.key)
    world.submit(deployment("early", 3, arrival=1))
    assert world.placement(keys[0]).priority == 10
    assert world.state.queue.line("").first == (-10, 1, keys[0])


def test_a_scale_is_a_submission() -> None:
    world = placed()
    world.feed(Scaled(LLM, 4))
    assert world.assigned(LLM) == {"b": 4}


def test_what_waits_goes_on_waiting_under_its_edition() -> None:
    world = World(Settings(stale_after=1e9))
    world.clusters(a=2, b=9)
    world.submit(deployment(replicas=3), policy(["a"], lazy=True))
    world.feed(PolicyChanged(policy(["b"], version=2, lazy=True)))
    assert world.assigned(LLM) == {"a": 2}
    world.clusters(a=5)
    assert world.assigned(LLM) == {"a": 3}
    assert world.codes(LLM) == {"": "PolicyPending"}


def test_after_a_restart_what_is_placed_stays() -> None:
    world = placed()
    world.restart()
    assert (world.assigned(LLM), world.last.assignments) == ({"a": 2}, [])
    assert not world.assignment(LLM, "a").conflict_overwrite
    world.submit(deployment(replicas=3))
    assert world.assigned(LLM) == {"b": 3}


def test_after_a_restart_the_edition_holds_for_what_is_decided_anew() -> None:
    world = World(Settings(stale_after=1e9))
    world.clusters(a=2, b=9)
    world.submit(deployment(replicas=3), policy(["a"], lazy=True))
    assert (world.assigned(LLM), world.placement(LLM).edition) == ({"a": 2}, policy(["a"]).manifest)
    world.feed(PolicyChanged(policy(["b"], version=2, lazy=True)))
    # The topic of policies is compacted: the first edition is nowhere but in the placement.
    world.inputs = [e for e in world.inputs if not (isinstance(e, PolicyChanged) and e.policy.version == 0)]
    world.restart()
    assert (world.assigned(LLM), world.codes(LLM)) == ({"a": 2}, {"a": "InsufficientResources", "": "PolicyPending"})
    world.clusters(a=5)
    assert world.assigned(LLM) == {"a": 3}
    world.feed(ClusterRemoved("a"))
    assert world.assigned(LLM) == {}, "b is for the next edition"
    world.submit(deployment(replicas=4))
    assert world.assigned(LLM) == {"b": 4}
    assert world.placement(LLM).edition == policy(version=2).manifest


def test_a_lazy_edition_after_one_that_was_not_is_carried_from_then_on() -> None:
    world = World(Settings(stale_after=1e9))
    world.clusters(a=2, b=9)
    world.submit(deployment(replicas=2), policy(["a"]))
    assert world.placement(LLM).edition is None
    before = world.placement(LLM).version
    out = world.feed(PolicyChanged(policy(["b"], version=2, lazy=True)))
    assert (world.placement(LLM).edition, out.assignments) == (policy().manifest, [])
    assert world.placement(LLM).version > before
    assert world.feed(PolicyChanged(policy(["b"], version=2, lazy=True))).placements == []
    world.feed(PolicyChanged(policy(["b"], version=3)))
    assert (world.assigned(LLM), world.placement(LLM).edition) == ({"b": 2}, None)


def test_a_lazy_policy_claims_nothing_that_was_there_before() -> None:
    world = World(Settings(stale_after=1e9))
    world.clusters(a=9)
    world.submit(deployment(replicas=2))
    world.feed(PolicyChanged(policy(["a"], lazy=True)))
    assert world.assigned(LLM) == {}
    world.submit(deployment("new", replicas=1))
    assert world.assigned("test/Deployment/new") == {"a": 1}
    world.restart()
    assert world.assigned(LLM) == {}
    world.submit(deployment(replicas=3))
    assert world.assigned(LLM) == {"a": 3}


def test_an_edition_that_is_not_lazy_counts_at_once() -> None:
    world = placed()
    world.feed(PolicyChanged(policy(["b"], version=3)))
    assert world.assigned(LLM) == {"b": 2}


def test_a_lazy_policy_takes_over_when_the_workload_changes() -> None:
    world = World(Settings(stale_after=1e9))
    world.clusters(a=9, b=9)
    world.submit(deployment(replicas=2), policy(["a"]))
    world.feed(PolicyChanged(policy(["b"], name="other", priority=5, preempts_policies=True, lazy=True)))
    assert world.assigned(LLM) == {"a": 2}
    world.submit(deployment(replicas=3))
    assert world.assigned(LLM) == {"b": 3}


@pytest.mark.parametrize("division", [DivisionType.DYNAMIC, DivisionType.DUPLICATED])
def test_another_schedulers_policy_is_left_alone(division: DivisionType) -> None:
    world = World(Settings(stale_after=1e9))
    world.clusters(a=9)
    foreign = policy(["a"], division=division, scheduler_name="volcano-global")
    world.submit(deployment(replicas=2), foreign)
    placement = world.placement(LLM)
    assert (placement.verdict, placement.shares, placement.policy) == (Verdict.UNSCHEDULABLE, (), foreign.key)
    assert world.message(LLM) == (
        "PropagationPolicy/test/pp is for the scheduler volcano-global; "
        "this one is default-scheduler and leaves it alone"
    )
    world.feed(PolicyChanged(policy(["a"], division=division, version=2)))
    assert world.assigned(LLM) == {"a": 2}
    before = world.assignment(LLM, "a")
    world.feed(PolicyChanged(policy(["a"], division=division, version=3, scheduler_name="volcano-global")))
    assert (world.assigned(LLM), world.codes(LLM)) == ({"a": 2}, {"": "OtherScheduler"})
    assert world.assignment(LLM, "a").components == before.components


def test_the_name_can_be_set() -> None:
    world = World(Settings(stale_after=1e9, scheduler_name="gpufleet"))
    world.clusters(a=9)
    world.feed(PolicyChanged(policy(["a"], scheduler_name="gpufleet")), WorkloadSubmitted(deployment(replicas=2)))
    assert world.assigned(LLM) == {"a": 2}


@pytest.mark.parametrize("gone", [True, False])
def test_what_a_lazy_policy_no_longer_means_stays_until_it_changes(gone: bool) -> None:
    world = World(Settings(stale_after=1e9))
    world.clusters(a=5, b=5)
    first, second = policy(["a"], name="first", lazy=True), policy(["b"], name="second", lazy=True)
    world.submit(deployment(replicas=3), first)
    world.feed(PolicyChanged(second))
    other = (ResourceSelector("apps/v1", "Deployment", "", "other"),)
    world.feed(PolicyRemoved(first.key) if gone else PolicyChanged(replace(first, selectors=other, version=5)))
    assert world.assigned(LLM) == {"a": 3}
    world.submit(deployment(replicas=3, digest="new"))
    assert world.assigned(LLM) == {"b": 3}
    assert world.placement(LLM).policy == second.key
