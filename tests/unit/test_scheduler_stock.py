"""Nodes that could be created, those that are on their way, and those that did not come (specification 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model.cluster import ComponentPods, NodeClass, WorkloadPods
from gpufleet.model.placement import ClusterCap, Eviction
from gpufleet.model.reasons import Verdict
from gpufleet.model.resources import resources
from gpufleet.model.selectors import Taint, Toleration
from gpufleet.model.workload import PodShape
from services.scheduler.core.events import Evicted, PodsChanged, PolicyChanged, Tick, WorkloadSubmitted
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.settings import Settings
from tests.support.scheduling import GPU, NODE, World, amounts, deployment, gpus_free, job, node_class, policy

A, B, C = (f"test/Deployment/{name}" for name in "abc")
ELASTIC = policy(ecs_provision=True)


def pool(stock: int, name: str = "gpu", **rest: Any) -> NodeClass:
    """A node pool at zero nodes."""
    return node_class(name, nodes=0, stock=stock, **rest)


def sources(world: World, key: str) -> dict[tuple[str, str], dict[str, int]]:
    """Pods by cluster and node class, by where their room was counted."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for share in world.placement(key).shares:
        for slot in share.slots:
            counts = found.setdefault((share.cluster, slot.node_class), {})
            counts[slot.source.value] = counts.get(slot.source.value, 0) + slot.count
    return found


def waiting(world: World, key: str, cluster: str, **pods: Any) -> Outputs:
    """Pods of a workload wait in a cluster."""
    main = ComponentPods(**pods)
    return world.feed(PodsChanged(WorkloadPods(cluster, key, components=(("main", main),))))


# --- What counts as stock ---------------------------------------------------------------------------------------------


def test_stock_is_asked_for_only_where_running_nodes_do_not_suffice() -> None:
    world = World()
    world.clusters(a=gpus_free(2, stock=5), b=gpus_free(1))
    world.submit(deployment("a", 3), ELASTIC)
    assert sources(world, A) == {("a", "gpu"): {"running": 2}, ("b", "gpu"): {"running": 1}}
    world.submit(deployment("b", 9), ELASTIC)
    assert sources(world, B) == {("a", "gpu"): {"elastic": 9}}
    assert world.state.fleet.member("a").pools[0].stock.fresh == 3


def test_without_ecs_provision_no_node_is_created() -> None:
    world = World()
    world.clusters(a=gpus_free(2, stock=5))
    world.submit(deployment("a", 3), policy())
    assert sources(world, A) == {("a", "gpu"): {"running": 2}}
    assert world.codes(A)["a"] == "InsufficientResources"


BIG = dict(NODE) | {GPU: 2}


@pytest.mark.parametrize(
    "found, placed",
    [
        (pool(3), 12),
        (pool(3, max_nodes=1), 4),
        (pool(3, max_nodes=0), 0),
        (pool(0), 0),
        (pool(3, max_nodes=-2), 0),
        (pool(3, allocatable=BIG), 3),
        (pool(3, allocatable=dict(NODE) | {GPU: 1}), 0),
        (pool(3, allocatable=dict(NODE) | {"cpu": 12_000}), 3),
        (pool(3, allocatable=dict(NODE) | {"pods": 2}), 6),
        (pool(3, node_labels={"gpu": "t4"}), 0),
        (pool(3, taints=(Taint("spot", "NoSchedule"),)), 0),
        (pool(3, taints=(Taint("gpu", "NoSchedule"),)), 12),
    ],
)
def test_a_pool_at_zero_nodes_counts_by_its_shape_labels_taints_and_bounds(found: NodeClass, placed: int) -> None:
    world = World()
    labelled = found if found.labels else replace(found, labels=(("gpu", "a100"),))
    world.clusters(a=labelled)
    shape = PodShape(
        resources(amounts(gpu=2, cpu=8_000)),
        node_selector=(("gpu", "a100"),),
        tolerations=(Toleration("gpu", "Exists"),),
    )
    world.submit(deployment("a", 20, shape=shape), ELASTIC)
    assert world.placement(A).placed == placed


# --- The rest of a node that is created anyway ------------------------------------------------------------------------


def test_workloads_decided_together_share_the_nodes_that_are_created() -> None:
    world = World()
    world.clusters(a=pool(1))
    both = deployment("a", 1, gpu=2), deployment("b", 3, gpu=2, arrival=1)
    world.feed(PolicyChanged(ELASTIC), *(WorkloadSubmitted(workload) for workload in both))
    assert (world.assigned(A), world.assigned(B)) == ({"a": 1}, {"a": 3})
    assert world.state.fleet.member("a").pools[0].stock.fresh == 0
    world.submit(deployment("c", 1), ELASTIC)
    assert world.codes(C)["a"] == "NoStock"


@pytest.mark.parametrize("provision, placed", [(True, 3), (False, 0)])
def test_the_rest_of_a_node_on_its_way_takes_those_who_come_later(provision: bool, placed: int) -> None:
    """Its instance is out of stock by then, and its pods wait for it."""
    world = World()
    world.clusters(a=pool(1))
    world.submit(deployment("a", 2, gpu=1), ELASTIC)
    waiting(world, A, "a", provisioning=2, provisioning_since=world.now)
    world.observe("a", pool(0))
    world.submit(deployment("b", 4, gpu=2), policy(name="other", ecs_provision=provision, priority=1))
    assert world.placement(B).placed == placed
    assert world.state.fleet.member("a").debt == 0
    assert sources(world, B) == ({("a", "gpu"): {"elastic": 3}} if provision else {})


def test_a_node_that_has_come_counts_once() -> None:
    world = World()
    world.clusters(a=pool(1))
    world.submit(deployment("a", 2, gpu=1), ELASTIC)
    waiting(world, A, "a", provisioning=2)
    world.observe("a", gpus_free(8, stock=0))
    world.submit(deployment("b", 9), policy())
    assert sources(world, B) == {("a", "gpu"): {"running": 6}}
    world.snapshot("a", gpus_free(0, stock=0), bound={A: 2, B: 6})
    assert world.state.fleet.member("a").debt == 0
    assert world.placement(B).placed == 6


def test_claims_are_shared_out_among_the_slots_of_a_workload() -> None:
    """Two pods wait for one node of a pool; one of another pool is not on its way because of that."""
    world = World()
    small = dict(NODE) | {GPU: 2}
    world.clusters(a=[pool(1, "small", allocatable=small), pool(1, "large")])
    world.submit(deployment("a", 4), ELASTIC)
    assert sources(world, A) == {("a", "large"): {"elastic": 2}, ("a", "small"): {"elastic": 2}}
    waiting(world, A, "a", provisioning=2)
    world.state.fleet.member("a").settle()
    found = {p.name: p.stock.fresh for p in world.state.fleet.member("a").pools}
    assert sorted(found.values()) == [0, 1], "one is counted on its way, the other is taken out of stock"


@pytest.mark.parametrize("existing_first", [False, True])
def test_another_cluster_creates_no_node_while_one_on_its_way_has_room(existing_first: bool) -> None:
    world = World()
    world.clusters(a=pool(9), b=pool(9), c=pool(9))
    rule = policy(ecs_provision=True, existing_capacity_first=existing_first)
    world.submit(deployment("a", 1), rule)
    [first] = world.assigned(A)
    world.submit(deployment("b", 9), rule)
    counts = world.assigned(B)
    assert counts[first] >= 7 and sum(counts.values()) == 9
    begun = sum(9 - member.pools[0].stock.fresh for member in world.state.fleet.by_index)
    assert begun == 3, "one for a, two for what is beyond its rest"


def test_groups_keep_their_order_and_existing_capacity_goes_first_if_asked() -> None:
    for existing_first, expected in ((False, {"a": 3}), (True, {"b": 3})):
        world = World()
        world.clusters(a=pool(9), b=pool(9))
        world.submit(deployment("b", 1), policy(["b"], ecs_provision=True, name="b", version=1))
        world.submit(
            deployment("a", 3),
            policy(["a"], ["b"], ecs_provision=True, existing_capacity_first=existing_first, name="a", priority=1),
        )
        assert world.assigned(A) == expected


def test_a_pool_with_smaller_nodes_creates_none_while_a_larger_one_has_a_rest() -> None:
    world = World()
    small = dict(NODE) | {GPU: 1}
    shape = PodShape(resources(amounts(gpu=4)))
    world.clusters(a=[pool(5, "small", allocatable=small), pool(5, "large")])
    world.submit(deployment("a", 1, shape=shape), ELASTIC)
    assert sources(world, A) == {("a", "large"): {"elastic": 1}}
    world.submit(deployment("b", 5), ELASTIC)
    assert sources(world, B) == {("a", "large"): {"elastic": 4}, ("a", "small"): {"elastic": 1}}


def test_a_gang_goes_where_a_node_is_created_anyway() -> None:
    world = World()
    world.clusters(a=pool(2), b=pool(2), c=pool(2))
    world.submit(deployment("c", 1), policy(["c"], ecs_provision=True, name="c", priority=1))
    rest = policy(["c"], name="c", version=1, kinds=())
    world.submit(job(components={"Master": (1, 1), "Worker": (3, 2)}), ELASTIC, rest)
    assert world.assigned("test/PyTorchJob/train") == {"c": 4}
    assert world.state.fleet.member("c").pools[0].stock.fresh == 1


# --- Nodes that did not come ------------------------------------------------------------------------------------------


def disappointed(settings: Settings | None = None, **pods: Any) -> World:
    """A cluster whose stock of 5 is counted on by one pod, which waits in vain."""
    world = World(settings=settings or Settings(stale_after=1e9, hold_timeout=1e9))
    world.clusters(a=[gpus_free(0, stock=5), pool(5, "other", node_labels={"gpu": "other"})])
    shape = PodShape(resources(amounts(gpu=8)))
    world.submit(deployment("a", 1, shape=shape), ELASTIC)
    assert sources(world, A) == {("a", "gpu"): {"elastic": 1}}
    waiting(world, A, "a", unschedulable=(world.now,), **pods)
    return world


IN_VAIN = [{"no_stock": True}, {"timed_out": 1}]


@pytest.mark.parametrize("pods", IN_VAIN)
def test_nodes_of_a_class_are_not_counted_on_after_one_did_not_come(pods: dict[str, Any]) -> None:
    world = disappointed(**pods)
    world.submit(deployment("b", 1), ELASTIC)
    assert sources(world, B) == {("a", "other"): {"elastic": 1}}, "only that class is doubted"
    assert world.state.fleet.member("a").debt == 0, "what is placed on it keeps its room"


@pytest.mark.parametrize("pods", IN_VAIN)
def test_it_is_tried_again_when_the_time_is_over_and_not_before(pods: dict[str, Any]) -> None:
    world = disappointed(**pods)
    world.observe("a", gpus_free(0, stock=5))
    world.submit(deployment("b", 1), ELASTIC)
    assert world.codes(B) == {"a": "StockNotTrusted"}
    assert world.message(B, "a").startswith(
        "needs 1 nvidia.com/gpu in one node, largest free block 0; 5 more nodes of gpu not counted on before "
        "1970-01-01T00:26:40Z: "
    )
    begin = world.now
    while world.now < begin + 600.0:
        assert world.placement(B).verdict is Verdict.UNSCHEDULABLE
        at = world.last.wake_at
        assert at is not None and at <= begin + 600.0
        world.now = at
        world.feed(Tick())
    assert world.assigned(B) == {"a": 1}


def test_the_same_pods_do_not_prolong_it_and_others_do() -> None:
    world = disappointed(no_stock=True)
    world.now += 300
    waiting(world, A, "a", unschedulable=(1000.0,), no_stock=True, message="still")
    assert world.state.doubts == {("a", "gpu"): 1600.0}
    waiting(world, A, "a", unschedulable=(1000.0,), timed_out=1)
    assert world.state.doubts == {("a", "gpu"): 1900.0}


@pytest.mark.parametrize("pods", IN_VAIN)
def test_a_node_of_the_class_ends_it(pods: dict[str, Any]) -> None:
    world = disappointed(**pods)
    world.observe("a", gpus_free(0, stock=5))
    world.submit(deployment("b", 3), ELASTIC)
    assert world.placement(B).placed == 0
    world.observe("a", gpus_free(0, 0, stock=4))
    assert sources(world, B) == {("a", "gpu"): {"elastic": 3}}
    assert world.state.doubts == {}


def test_a_snapshot_that_was_overtaken_ends_nothing() -> None:
    world = disappointed(timed_out=1)
    world.observe("a", gpus_free(0, stock=5), n=3)
    world.observe("a", gpus_free(0, 0, stock=4), n=2)
    assert world.state.doubts == {("a", "gpu"): 1600.0}


@pytest.mark.parametrize("pods, ends", [({"no_stock": True}, True), ({"timed_out": 1}, False)])
def test_stock_that_comes_back_ends_a_doubt_about_stock(pods: dict[str, Any], ends: bool) -> None:
    world = disappointed(**pods)
    world.observe("a", gpus_free(0, stock=0))
    world.observe("a", gpus_free(0, stock=2))
    assert (world.state.doubts == {}) is ends


def test_a_cluster_of_another_incarnation_is_not_doubted() -> None:
    world = disappointed(timed_out=1)
    world.observe("a", gpus_free(0, stock=5), incarnation="new")
    assert world.state.doubts == {}


def test_pods_on_running_nodes_say_nothing_about_stock() -> None:
    world = World()
    world.clusters(a=gpus_free(1, stock=5))
    world.submit(deployment("a", 1), ELASTIC)
    waiting(world, A, "a", unschedulable=(world.now,), no_stock=True)
    assert world.state.doubts == {}


def test_nothing_is_doubted_where_it_is_switched_off() -> None:
    world = disappointed(Settings(stale_after=1e9, provision_retry=0.0), timed_out=1)
    assert world.state.doubts == {}


def eviction(world: World, at: float) -> Evicted:
    cap = ClusterCap("a", 0, at + 300, "ProvisioningFailed", "1 waited for nodes that did not come", ("gpu",))
    return Evicted(Eviction(A, world.placement(A).version, (cap,), attempts=1, at=at))


def test_an_eviction_that_names_the_class_outlasts_the_pods_and_a_restart() -> None:
    world = World(settings=Settings(stale_after=1e9, overtake_after=1e9))
    world.clusters(a=gpus_free(0, stock=5))
    world.submit(deployment("a", 1), ELASTIC)
    world.feed(eviction(world, world.now))
    assert world.state.doubts == {("a", "gpu"): 1600.0}
    world.now += 400
    world.restart()
    assert world.state.doubts == {("a", "gpu"): 1600.0}
    world.submit(deployment("b", 1), ELASTIC)
    assert world.codes(B) == {"a": "StockNotTrusted"}
    world.now += 200
    world.feed(Tick())
    assert world.assigned(B) == {"a": 1}
    world.restart()
    assert world.state.doubts == {}, "its time was over"


def test_pods_that_still_wait_in_vain_are_known_after_a_restart() -> None:
    world = disappointed(timed_out=1)
    world.now += 100
    world.restart()
    assert world.state.doubts == {("a", "gpu"): 1700.0}, "since when is not known any more"


def test_a_cap_that_is_carried_along_does_not_prolong_it() -> None:
    world = World()
    world.clusters(a=gpus_free(0, stock=5))
    world.submit(deployment("a", 1), ELASTIC)
    first = eviction(world, world.now)
    world.feed(first)
    world.now += 100
    world.feed(Evicted(replace(first.eviction, at=world.now, attempts=2)))
    assert world.state.doubts == {("a", "gpu"): 1600.0}
