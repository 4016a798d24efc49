"""Preemption where the inventory tells on which nodes pods are: who goes is who makes room, and nobody goes in vain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model.cluster import ComponentPods, WorkloadPods
from gpufleet.model.policy import PriorityClass
from gpufleet.model.reasons import Code
from gpufleet.model.workload import Workload
from services.scheduler.core.events import ClusterRemoved, PodsChanged, PolicyChanged, Tick, WorkloadDeleted
from tests.support.nodes import Cluster, Fleet
from tests.support.scheduling import World, deployment, gpus_free, job, policy

LOW, MID, HIGH = PriorityClass("low", -10), PriorityClass("mid", 10), PriorityClass("high", 100)
WANTED = "test/PyTorchJob/wanted"


def fleet(*sizes: int, **rest: Any) -> Fleet:
    w = World()
    found = Fleet(w, {"a": Cluster("a", {f"n{i}": size for i, size in enumerate(sizes)})})
    found.register()
    w.feed(*(PolicyChanged(rule) for rule in (LOW, MID, HIGH, policy(**rest))))
    return found


def ranked(workload: Workload, rank: str) -> Workload:
    return replace(workload, priority_class=rank)


def put(f: Fleet, workload: Workload, *nodes: str) -> None:
    """Submits a workload whose pods are bound to these nodes, one by one."""
    f.world.submit(workload)
    gpus = dict(workload.components[0].shape.requests).get("nvidia.com/gpu", 0)
    assert f.world.placement(workload.key).placed == len(nodes)
    for node in nodes:
        f.clusters["a"].start(workload.key, workload.components[0].name, gpus, node)
    f.publish()


def placed(w: World) -> dict[str, int]:
    return {key.rpartition("/")[2]: p.placed for key, (_, p) in sorted(w.placements.items()) if p is not None}


def test_who_goes_is_who_shares_a_node() -> None:
    f = fleet(8, 8)
    for number, (name, node) in enumerate([("a", "n0"), ("b", "n1"), ("c", "n0"), ("d", "n1")]):
        put(f, ranked(job(name, {"Worker": (4, 1)}, arrival=number), "low"), *[node] * 4)
    # Two of them make room for it, but not the last two.
    f.world.submit(ranked(job("wanted", {"Worker": (1, 8)}, arrival=9), "high"))
    found = placed(f.world)
    assert found in ({"a": 0, "b": 4, "c": 0, "d": 4, "wanted": 1}, {"a": 4, "b": 0, "c": 4, "d": 0, "wanted": 1})
    f.stop_surplus()
    assert f.debt("a") == 0
    f.start_pending([0])
    assert not f.pending("a")


def test_where_the_pods_of_each_component_are_counts() -> None:
    f = fleet(8, 8)
    for number, (name, nodes) in enumerate([("a", ("n0", "n1")), ("b", ("n1", "n0"))]):
        key = f"test/PyTorchJob/{name}"
        f.world.submit(ranked(job(name, {"Master": (1, 1), "Worker": (1, 6)}, arrival=number), "low"))
        for (component, gpus), node in zip((("Master", 1), ("Worker", 6)), nodes, strict=True):
            f.clusters["a"].start(key, component, gpus, node)
        f.publish()
    # One GPU is free on each node; without the last one another has seven, beside the first one's.
    f.world.submit(ranked(job("wanted", {"Worker": (1, 8)}, arrival=9), "high"))
    assert placed(f.world) == {"a": 0, "b": 0, "wanted": 1}
    f = fleet(8, 8)
    f.world.submit(ranked(job("a", {"Master": (1, 1), "Worker": (1, 6)}, arrival=1), "low"))
    f.clusters["a"].start("test/PyTorchJob/a", "Master", 1, "n0")
    f.clusters["a"].start("test/PyTorchJob/a", "Worker", 6, "n1")
    f.publish()
    put(f, ranked(deployment("firm", 2, arrival=2), "high"), "n0", "n1")
    f.world.submit(ranked(job("wanted", {"Worker": (2, 7)}, arrival=9), "high"))
    assert placed(f.world) == {"a": 0, "firm": 2, "wanted": 2}


def test_nobody_goes_if_no_node_would_be_free() -> None:
    f = fleet(8, 8)
    for number, node in enumerate(["n0", "n1"]):
        put(f, ranked(deployment(f"firm{number}", 1, arrival=number), "high"), node)
    put(f, ranked(deployment("victim", 14, arrival=3), "low"), *["n0"] * 7, *["n1"] * 7)
    f.world.submit(ranked(job("wanted", {"Worker": (1, 8)}, arrival=4), "high"))
    assert placed(f.world) == {"firm0": 1, "firm1": 1, "victim": 14, "wanted": 0}


def test_a_node_that_takes_no_pods_gains_nothing() -> None:
    f = fleet(8, 8)
    put(f, ranked(job("there", {"Worker": (8, 1)}, arrival=1), "mid"), *["n0"] * 8)
    put(f, ranked(job("cordoned", {"Worker": (8, 1)}, arrival=2), "low"), *["n1"] * 8)
    f.clusters["a"].put_node("n1", 8, usable=False)
    f.publish()
    f.world.submit(ranked(job("wanted", {"Worker": (1, 8)}, arrival=3), "high"))
    assert placed(f.world) == {"cordoned": 8, "there": 0, "wanted": 1}


def test_a_deployment_loses_as_many_replicas_as_go_before_the_node_is_free() -> None:
    f = fleet(4, 8)
    put(f, ranked(deployment("victim", 9, arrival=1), "low"), *["n0"] * 4, *["n1"] * 5)
    # Its controller takes the five first that are together; without them there is room for it.
    f.world.submit(ranked(job("wanted", {"Worker": (1, 8)}, arrival=2), "high"))
    assert placed(f.world) == {"victim": 4, "wanted": 1}
    f.stop_surplus()
    assert sorted(pod.node for pod in f.clusters["a"].pods.values()) == ["n0"] * 4
    # For the other node all of them have to go.
    f = fleet(4, 8)
    put(f, ranked(deployment("victim", 9, arrival=1), "low"), *["n0"] * 4, *["n1"] * 5)
    put(f, ranked(deployment("firm", 1, arrival=2), "high"), "n1")
    f.world.submit(ranked(job("wanted", {"Worker": (1, 4)}, arrival=3), "high"))
    assert placed(f.world) == {"firm": 1, "victim": 7, "wanted": 1}
    f.stop_surplus()
    f.start_pending([0])
    assert not f.pending("a")


def test_pods_that_wait_for_a_node_make_no_room_and_go_first() -> None:
    w = World()
    w.clusters(a=gpus_free(4, 1, stock=1))
    w.feed(*(PolicyChanged(rule) for rule in (LOW, HIGH, policy(ecs_provision=True))))
    w.submit(ranked(deployment("victim", 13, arrival=1), "low"))
    w.feed(PodsChanged(WorkloadPods("a", "test/Deployment/victim", components=(("main", ComponentPods(bound=5)),))))
    w.observe("a", gpus_free(0, 0, stock=1))
    w.submit(ranked(job("wanted", {"Worker": (1, 4)}, arrival=2), "high"))
    # Eight of its pods wait for the node in stock. They are the first that its controller gives up.
    (told,) = [r for r in w.placement("test/Deployment/victim").reasons if r.code is Code.PREEMPTED]
    assert told.message.startswith("lost 12 of 13 pods")
    assert placed(w) == {"victim": 1, "wanted": 1}
    # When they are gone the node that is on its way is for others.
    w.feed(PodsChanged(WorkloadPods("a", "test/Deployment/victim", components=(("main", ComponentPods(bound=1)),))))
    w.observe("a", gpus_free(4, 0, stock=1))
    assert placed(w) == {"victim": 9, "wanted": 1}


def test_who_yielded_gets_nothing_back_in_the_same_cluster_before_its_pods_are_gone() -> None:
    f = fleet(4, 8)
    w, cluster = f.world, f.clusters["a"]
    w.feed(PolicyChanged(policy(kinds=[("apps/v1", "Deployment")])))
    shape = deployment("x").components[0].shape
    large = replace(shape, node_selector=(("gpus", "8"),))
    put(f, ranked(deployment("victim", 8, arrival=1), "low"), *["n1"] * 8)
    w.submit(ranked(deployment("wanted", 2, arrival=2, shape=large), "high"))
    # There is room for two on the other node. But a cluster that is to have eight of them keeps the eight it has.
    assert placed(w) == {"victim": 6, "wanted": 2}
    assert [r.code.value for r in w.placement("test/Deployment/victim").reasons] == ["Preempted", "WaitingForRemoval"]
    w.restart()
    assert placed(w) == {"victim": 6, "wanted": 2}
    f.stop_surplus()
    assert len(cluster.of("test/Deployment/victim", "main")) == 6
    assert placed(w) == {"victim": 8, "wanted": 2}


@pytest.mark.parametrize("together", [True, False])
def test_what_victims_still_use_counts_as_free_on_their_nodes(together: bool) -> None:
    f = fleet(8, 8)
    w, cluster = f.world, f.clusters["a"]
    nodes = ["n0"] * 4 + ["n1"] * 4 if not together else ["n0"] * 8
    put(f, ranked(job("victim", {"Worker": (8, 1)}, arrival=1), "low"), *nodes)
    put(f, ranked(job("firm", {"Worker": (4, 1)}, arrival=2), "high"), *["n1"] * 4)
    w.submit(ranked(job("wanted", {"Worker": (1, 8)}, arrival=3), "high"))
    assert placed(w) == {"firm": 4, "victim": 0 if placed(w)["wanted"] else 8, "wanted": 1}
    # Its pods go one by one, and the place of the preemptor is there all the time.
    for step in (cluster.terminate, cluster.stop) * 8:
        step(cluster.of("test/PyTorchJob/victim", "Worker")[0])
        f.publish()
        assert f.debt("a") == 0
        assert placed(w)["wanted"] == 1
    f.start_pending([0])
    assert not f.pending("a")


# What is kept for the preemptor.


def taken_over() -> Fleet:
    """A job of 8 that has taken the place of another one, whose pods are still there."""
    f = fleet(8)
    put(f, ranked(deployment("victim", 8, arrival=1), "low"), *["n0"] * 8)
    f.world.submit(ranked(job("wanted", {"Worker": (1, 8)}, arrival=2), "high"))
    assert placed(f.world) == {"victim": 0, "wanted": 1}
    return f


def test_nobody_takes_what_is_kept_for_the_preemptor_until_it_runs() -> None:
    f = taken_over()
    f.world.submit(ranked(deployment("late", 2, arrival=3), "mid"))
    f.stop_surplus()
    f.world.submit(ranked(deployment("later", 2, arrival=4), "low"))
    assert placed(f.world) == {"late": 0, "later": 0, "victim": 0, "wanted": 1}
    f.start_pending([0])
    assert placed(f.world) == {"late": 0, "later": 0, "victim": 0, "wanted": 1}
    assert not f.pending("a")


def test_after_a_limit_what_is_kept_is_for_others() -> None:
    f = taken_over()
    w = f.world
    f.stop_surplus()
    w.now += w.state.settings.hold_timeout - 1
    f.publish()
    assert placed(w) == {"victim": 0, "wanted": 1}
    w.now += 2
    f.publish()
    w.feed(Tick())
    assert placed(w) == {"victim": 8, "wanted": 1}


def test_who_yielded_has_its_place_back_if_the_preemptor_is_deleted() -> None:
    f = taken_over()
    f.world.feed(WorkloadDeleted(WANTED))
    # Its pods have not gone yet, and need not.
    assert f.world.placement("test/Deployment/victim").placed == 8
    f.stop_surplus()
    assert len(f.clusters["a"].pods) == 8


def test_a_preemptor_that_needs_less_gives_the_rest_to_others() -> None:
    f = fleet(8)
    put(f, ranked(deployment("victim", 8, arrival=1), "low"), *["n0"] * 8)
    wanted = ranked(deployment("wanted", 6, arrival=2), "high")
    f.world.submit(wanted)
    assert placed(f.world) == {"victim": 2, "wanted": 6}
    f.stop_surplus()
    f.world.submit(ranked(deployment("wanted", 3, arrival=2), "high"))
    assert placed(f.world) == {"victim": 5, "wanted": 3}


@pytest.mark.parametrize("late", [False, True])
def test_a_restart_forgets_nothing_of_it(late: bool) -> None:
    f = taken_over()
    w = f.world
    if late:
        f.stop_surplus()
    w.restart()
    w.submit(ranked(deployment("late", 2, arrival=3), "mid"))
    assert placed(w) == {"late": 0, "victim": 0, "wanted": 1}
    f.stop_surplus()
    assert f.debt("a") == 0
    assert placed(w) == {"late": 0, "victim": 0, "wanted": 1}
    f.start_pending([0])
    assert not f.pending("a")


def test_a_preemptor_whose_cluster_is_lost_looks_for_another_place() -> None:
    w = World()
    f = Fleet(w, {name: Cluster(name, {f"{name}0": 8}) for name in ("a", "b")})
    f.register()
    w.feed(*(PolicyChanged(rule) for rule in (LOW, MID, HIGH, policy())))
    for number, name in enumerate(("one", "two")):
        w.submit(ranked(job(name, {"Worker": (8, 1)}, arrival=number), "low"))
    f.start_pending([0])
    w.submit(ranked(job("wanted", {"Worker": (1, 8)}, arrival=3), "high"))
    ((first, _),) = w.assigned(WANTED).items()
    w.feed(ClusterRemoved(first))
    w.gone(WANTED, first)
    ((other, _),) = w.assigned(WANTED).items()
    assert other != first
    assert sorted(placed(w).values()) == [0, 0, 1]
    assert w.message(WANTED, other).startswith("takes the place of")
