"""What is kept of the tables follows from them: who could yield, and what room there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gpufleet.model.cluster import ClusterSpec, ComponentPods, NodePods, WorkloadPods
from gpufleet.model.placement import Version
from gpufleet.model.policy import PriorityClass
from gpufleet.model.reasons import Verdict
from services.scheduler.core.events import (
    ClusterRegistered,
    ClusterRemoved,
    InventoryChanged,
    InventoryGone,
    PlacementRead,
    PodsChanged,
    PodsGone,
    PolicyChanged,
    Started,
    Stopped,
    Tick,
    WorkloadDeleted,
    WorkloadSubmitted,
)
from services.scheduler.core.reserve import refit
from services.scheduler.core.victims import Victim, Victims
from tests.support.scheduling import World, deployment, gpus_free, inventory, policy

LOW, HIGH = PriorityClass("low", -10), PriorityClass("high", 100)
KEY = "test/Deployment/victim"


def _world() -> World:
    w = World()
    w.clusters(a=[gpus_free(0, 4), gpus_free(2, name="more", node_labels={"kind": "more"})])
    w.feed(PolicyChanged(LOW), PolicyChanged(HIGH), PolicyChanged(policy()))
    made = deployment("victim", 4, arrival=1)
    w.submit(replace(made, priority_class="low"))
    return w


def _pods_gone(w: World) -> None:
    w.feed(PodsGone("a", KEY))


def _hold_expired(w: World) -> None:
    w.feed(PodsGone("a", KEY))
    _known(w)
    w.now += w.settings.hold_timeout + 1
    w.feed(Tick())


def _other_classes(w: World) -> None:
    w.observe("a", gpus_free(0, 0, name="other"))


def _inventory_gone(w: World) -> None:
    w.feed(InventoryGone("a"))


def _inventory_back(w: World) -> None:
    w.feed(InventoryGone("a"), WorkloadSubmitted(replace(deployment("victim", 3, arrival=1), priority_class="low")))
    _known(w)
    w.feed(InventoryChanged(inventory("a", gpus_free(0, 0), at=w.now)))


def _known(w: World) -> dict[str, list[Victim]]:
    w.state.victims.catch_up(w.state)
    return _by_cluster(w.state.victims)


def _by_cluster(victims: Victims) -> dict[str, list[Victim]]:
    return {name: [v for group in victims.groups(name).values() for v in group.ordered()] for name in ("a", "b")}


@pytest.mark.parametrize(
    "change",
    [_pods_gone, _hold_expired, _other_classes, _inventory_gone, _inventory_back],
)
def test_whoever_could_yield_is_looked_at_again(change: Callable[[World], None]) -> None:
    w = _world()
    w.bind(KEY, "a", main=2)
    assert _known(w)["a"]
    change(w)
    fresh = Victims()
    fresh.all_changed(w.state.entries)
    fresh.catch_up(w.state)
    assert _known(w) == _by_cluster(fresh)


def test_an_inventory_that_is_gone_does_not_come_back_with_pods() -> None:
    w = World()
    w.clusters(a=gpus_free(0, 4))
    w.feed(PolicyChanged(LOW), PolicyChanged(HIGH), PolicyChanged(policy()))
    w.submit(replace(deployment("victim", 4, arrival=1), priority_class="low"))
    w.snapshot("a", gpus_free(0, 0), bound={KEY: 4})
    w.submit(replace(deployment("first", 2, arrival=2), priority_class="high"))
    assert w.assigned(KEY) == {"a": 2}
    w.feed(InventoryGone("a"))
    w.bind(KEY, "a", main=3)
    assert w.state.fleet.members["a"].inventory is None


def test_room_is_not_kept_for_pods_that_run_already() -> None:
    w = World()
    w.clusters(a=[gpus_free(2, name="one"), gpus_free(2, name="two")])
    w.feed(PolicyChanged(policy(gang=True)))
    w.submit(deployment("llm", 3))
    w.bind("test/Deployment/llm", "a", main=2)
    w.feed(ClusterRemoved("a"))
    assert w.assigned("test/Deployment/llm") == {}
    w.feed(ClusterRegistered(ClusterSpec("a")))
    assert w.assigned("test/Deployment/llm") == {"a": 3}
    member = w.state.fleet.members["a"]
    member.settle()
    left = [dict(pool.running) for pool in member.pools]
    refit(member)
    assert left == [dict(pool.running) for pool in member.pools]


@pytest.mark.parametrize("placed", [False, True])
def test_who_waited_before_another_leader_is_not_waited_for(placed: bool) -> None:
    w = World()
    w.clusters(a=1)
    w.feed(PolicyChanged(policy()))
    w.submit(deployment("first", 1, arrival=1))
    w.submit(deployment("second", 1, arrival=2))
    key = "test/Deployment/second"
    other, shares = w.placement("test/Deployment/first"), w.placement("test/Deployment/first").shares
    w.feed(Stopped())
    version = Version(2, 9)
    if placed:
        w.feed(WorkloadDeleted(other.workload, 5))
        w.feed(PlacementRead(other.workload, Version(2, 8), None))
        known = replace(w.placement(key), version=version, verdict=Verdict.SCHEDULED, shares=shares)
        w.feed(PlacementRead(key, version, known))
    else:
        w.feed(WorkloadDeleted(key, 5))
        w.feed(PlacementRead(key, version, None))
    w.feed(Started(3, "log"))
    assert len(w.state.queue) == 0


def test_a_standby_forgets_what_no_policy_selected() -> None:
    w = World()
    w.clusters(a=1)
    w.submit(deployment("alone", 1))
    w.feed(Stopped())
    w.feed(WorkloadDeleted("test/Deployment/alone", 5))
    w.feed(PlacementRead("test/Deployment/alone", Version(2, 9), None))
    w.feed(PolicyChanged(policy()))
    assert not w.state.unmatched


@pytest.mark.parametrize("known", [ComponentPods(bound=3, leaving=(NodePods("gpu", 1, 0),)), ComponentPods(bound=4)])
def test_a_record_may_tell_of_no_pods_on_a_node(known: ComponentPods) -> None:
    w = _world()
    w.bind(KEY, "a", main=4)
    share = w.placement(KEY).shares[0]
    version, placement = w.placements[KEY]
    assert placement is not None
    none = replace(share.slots[0], count=0)
    w.placements[KEY] = (version, replace(placement, shares=(replace(share, slots=(none, *share.slots)),)))
    w.restart(PodsGone("a", KEY))
    assert _known(w)["a"]
    w.bind(KEY, "a", main=4)
    w.submit(replace(deployment("first", 4, arrival=2), priority_class="high"))
    w.feed(PodsChanged(WorkloadPods("a", KEY, components=(("main", known),))))
    assert w.assigned("test/Deployment/first") == {"a": 4}
