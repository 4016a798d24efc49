"""Decisions end to end in the core: the worked examples, and rows of the specification's table of tests (19)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpufleet.model.cluster import ClusterSpec, Health, ModelStock, VirtualNode
from gpufleet.model.placement import Slot, Source
from gpufleet.model.policy import (
    ClusterAffinity,
    DivisionType,
    PriorityClass,
    ResourcePolicy,
    ResourceUnit,
    StaticWeight,
    UnitResource,
)
from gpufleet.model.reasons import Code, Verdict
from gpufleet.model.resources import labels, resources
from gpufleet.model.selectors import LabelSelector, Taint, Toleration
from gpufleet.model.workload import PodShape, Workload
from services.scheduler.core import explain
from services.scheduler.core.events import (
    ClusterRegistered,
    ClusterRemoved,
    FreezeChanged,
    InventoryChanged,
    PolicyChanged,
    PolicyRemoved,
    RescheduleRequested,
    Scaled,
    Tick,
    WorkloadSubmitted,
    WorkloadUnreadable,
)
from services.scheduler.core.settings import Settings
from tests.support.scheduling import (
    GPU,
    World,
    amounts,
    deployment,
    gpus_free,
    inventory,
    job,
    node_class,
    policy,
)

LLM = "test/Deployment/llm"
TRAIN = "test/PyTorchJob/train"


def tiers() -> World:
    """Tiers A = {a1 free 4, a2 free 2}, B = {b1 free 10}."""
    world = World()
    world.clusters(a1=4, a2=2, b1=10)
    world.feed(PolicyChanged(policy(["a1", "a2"], ["b1"])))
    return world


# T1: table 2.5 of the specification.


def test_t1_worked_example_of_priority_groups() -> None:
    world = tiers()
    world.submit(deployment(replicas=3))
    assert world.assigned(LLM) == {"a1": 2, "a2": 1}
    for replicas, expected in (
        (6, {"a1": 4, "a2": 2}),
        (9, {"a1": 4, "a2": 2, "b1": 3}),
        (7, {"a1": 4, "a2": 2, "b1": 1}),
        (5, {"a1": 3, "a2": 2}),
    ):
        world.feed(Scaled(LLM, replicas))
        assert world.assigned(LLM) == expected, replicas
        assert world.placement(LLM).verdict is Verdict.SCHEDULED


def test_t1_outage_of_the_lower_group_leaves_its_replicas_unplaced() -> None:
    world = World(Settings(lost_when_unreachable=True))
    world.clusters(a1=4, a2=2, b1=10)
    world.submit(deployment(replicas=9), policy(["a1", "a2"], ["b1"]))
    assert world.assigned(LLM) == {"a1": 4, "a2": 2, "b1": 3}
    world.observe("b1", health=Health.UNREACHABLE, message="connection refused")
    placement = world.placement(LLM)
    assert world.assigned(LLM) == {"a1": 4, "a2": 2}
    assert placement.verdict is Verdict.PARTIALLY_SCHEDULED
    assert (placement.replicas, placement.placed, placement.unplaced) == (9, 6, 3)
    assert world.codes(LLM)["b1"] == "ClusterUnreachable"
    assert world.codes(LLM)["a1"] == "InsufficientResources"


def test_an_unreachable_cluster_keeps_its_replicas_until_somebody_evicts_them() -> None:
    world = tiers()
    world.submit(deployment(replicas=9))
    world.observe("b1", health=Health.UNREACHABLE)
    assert world.assigned(LLM) == {"a1": 4, "a2": 2, "b1": 3}
    world.feed(Scaled(LLM, 10))
    assert world.assigned(LLM) == {"a1": 4, "a2": 2, "b1": 3}
    assert world.placement(LLM).unplaced == 1


def test_what_an_unreachable_cluster_is_said_to_suffer_from_is_what_its_last_snapshot_says() -> None:
    world = tiers()
    for n, message in enumerate(("connection refused", "the certificate has expired")):
        world.observe("b1", health=Health.UNREACHABLE, message=message)
        world.submit(deployment(f"late-{n}", 12, arrival=n))
        assert world.message(f"test/Deployment/late-{n}", "b1").endswith(message)


def test_recovery_of_a_higher_group_moves_nothing_until_the_replicas_change() -> None:
    world = tiers()
    world.submit(deployment(replicas=9))
    world.observe("a1", gpus_free(*[1] * 8))
    assert world.assigned(LLM)["b1"] == 3
    world.feed(Scaled(LLM, 10))
    assert world.assigned(LLM) == {"a1": 8, "a2": 2}


# Weights.


@pytest.mark.parametrize("weights, expected", [((1, 2), {"a": 3, "b": 6}), ((1, 3), {"a": 2, "b": 7})])
def test_t2_static_weights(weights: tuple[int, int], expected: dict[str, int]) -> None:
    world = World()
    world.clusters(a=1, b=1, c=99)
    rules = tuple(
        StaticWeight(ClusterAffinity(cluster_names=(name,)), w) for name, w in zip("ab", weights, strict=True)
    )
    world.submit(deployment(replicas=9), policy(division=DivisionType.STATIC, static_weights=rules))
    assert world.assigned(LLM) == expected
    assert world.placement(LLM).verdict is Verdict.SCHEDULED


def test_t3_dynamic_weights() -> None:
    world = World()
    world.clusters(a=6, b=12, c=18)
    world.submit(deployment(replicas=12), policy())
    assert world.assigned(LLM) == {"a": 2, "b": 4, "c": 6}


def test_equal_clusters_are_told_apart_by_the_uid() -> None:
    found = set()
    for uid in ("a", "b", "c", "d"):
        world = World()
        world.clusters(x=4, y=4)
        world.submit(deployment(replicas=1, uid=uid), policy())
        found |= set(world.assigned(LLM))
    assert found == {"x", "y"}


# Stock.


def test_t4_without_ecs_provision_stock_does_not_count() -> None:
    world = World()
    world.clusters(idc=2, cloud=node_class(nodes=0, stock=5))
    world.submit(deployment(replicas=4, gpu=8), policy(["idc"], ["cloud"]))
    assert world.placement(LLM).verdict is Verdict.UNSCHEDULABLE
    assert world.message(LLM, "idc") == f"needs 8 {GPU} in one node, largest free block 1"
    assert world.codes(LLM)["cloud"] == "InsufficientResources"


def test_t5_with_ecs_provision_the_cloud_creates_nodes_for_what_does_not_fit() -> None:
    world = World()
    world.clusters(idc=gpus_free(8, 8), cloud=node_class(nodes=0, stock=5))
    world.submit(deployment(replicas=4, gpu=8), policy(["idc"], ["cloud"], ecs_provision=True))
    assert world.assigned(LLM) == {"idc": 2, "cloud": 2}
    share = world.placement(LLM).share("cloud")
    assert share is not None
    assert share.slots == (Slot("main", "gpu", 2, Source.ELASTIC),)
    world.feed(Scaled(LLM, 8))
    assert world.assigned(LLM) == {"idc": 2, "cloud": 5}
    placement = world.placement(LLM)
    assert (placement.verdict, placement.unplaced) == (Verdict.PARTIALLY_SCHEDULED, 1)
    assert world.codes(LLM)["idc"] == "InsufficientResources"
    world.feed(Scaled(LLM, 2))
    assert world.assigned(LLM) == {"idc": 2}


def test_stock_is_not_counted_twice_for_workloads_decided_together() -> None:
    world = World()
    world.clusters(cloud=node_class(nodes=0, stock=3))
    world.feed(
        PolicyChanged(policy(ecs_provision=True)),
        WorkloadSubmitted(deployment("one", 2, gpu=8, arrival=1)),
        WorkloadSubmitted(deployment("two", 2, gpu=8, arrival=2)),
    )
    assert world.assigned("test/Deployment/one") == {"cloud": 2}
    assert world.assigned("test/Deployment/two") == {"cloud": 1}
    assert world.placement("test/Deployment/two").unplaced == 1


def test_stock_of_a_class_that_the_pods_may_not_use_counts_nothing() -> None:
    world = World()
    tainted = node_class("t4", nodes=0, stock=5, taints=(Taint("gpu", "NoSchedule", "t4"),))
    world.clusters(cloud=tainted)
    world.submit(deployment(replicas=1), policy(ecs_provision=True))
    assert world.placement(LLM).verdict is Verdict.UNSCHEDULABLE
    assert world.message(LLM, "cloud") == "the pods do not tolerate the taint gpu=t4:NoSchedule of t4"


# Partial success (5).


def test_partial_success_is_for_deployments_and_for_statefulsets_on_request() -> None:
    expected: dict[str, int]
    for kind, asked, expected in (
        ("Deployment", False, {"a": 2}),
        ("StatefulSet", False, {}),
        ("StatefulSet", True, {"a": 2}),
    ):
        world = World()
        world.clusters(a=2)
        world.submit(deployment(replicas=5, kind=kind), policy(partial_statefulsets=asked))
        assert world.assigned(f"test/{kind}/llm") == expected, (kind, asked)


def test_what_does_not_fit_whole_keeps_its_previous_assignment() -> None:
    world = World()
    world.clusters(a=4)
    world.submit(deployment(replicas=2, kind="StatefulSet"), policy())
    world.feed(Scaled("test/StatefulSet/llm", 9))
    placement = world.placement("test/StatefulSet/llm")
    assert world.assigned("test/StatefulSet/llm") == {"a": 2}
    assert (placement.verdict, placement.replicas, placement.unplaced) == (Verdict.PARTIALLY_SCHEDULED, 9, 7)
    assert world.message("test/StatefulSet/llm", "a") == "has room for 2 more, which is not enough"


def test_the_remainder_is_placed_when_room_appears_and_cancelled_first_on_scale_in() -> None:
    world = World()
    world.clusters(a=5, b=0)
    world.submit(deployment(replicas=8), policy())
    assert world.placement(LLM).unplaced == 3
    world.feed(Scaled(LLM, 6))
    assert world.assigned(LLM) == {"a": 5}
    assert world.placement(LLM).unplaced == 1
    world.observe("b", gpus_free(1, 1))
    assert world.assigned(LLM) == {"a": 5, "b": 1}
    assert world.placement(LLM).verdict is Verdict.SCHEDULED
    assert world.last.wake_at == 1000.0 + 900.0


# Gang and job kinds (12).


def test_a_job_goes_whole_to_the_first_group_that_takes_it_and_there_to_the_least_fragmented() -> None:
    world = World()
    world.clusters(small=gpus_free(8), roomy=gpus_free(8, 8, 8), tight=gpus_free(4, 4), far=gpus_free(8, 8))
    world.submit(job(components={"Worker": (2, 4)}), policy(["small", "roomy", "tight"], ["far"]))
    # All of them fit; only in small and tight nothing is stranded, and tight is left without a free GPU as well.
    assert world.assigned(TRAIN) in ({"tight": 2}, {"small": 2})
    assert world.placement(TRAIN).shares[0].components == (("Worker", 2),)


def test_components_are_packed_together_not_one_by_one() -> None:
    world = World()
    world.clusters(a=gpus_free(6, 6))
    # Each component fits by itself (6 + 6), together they need 4 + 4 + 2 + 2 + 2 on nodes of 6.
    world.submit(job(components={"Master": (2, 4), "Worker": (3, 2)}), policy())
    assert world.placement(TRAIN).verdict is Verdict.UNSCHEDULABLE
    assert world.codes(TRAIN)["a"] == "GangDoesNotFit"
    world.observe("a", gpus_free(6, 6, 2))
    assert world.assigned(TRAIN) == {"a": 5}


def test_t9_a_gang_larger_than_every_cluster_but_smaller_than_the_sum_waits() -> None:
    world = World()
    world.clusters(a=gpus_free(8, 8), b=gpus_free(8, 8))
    world.submit(job(components={"Worker": (3, 8)}), policy())
    placement = world.placement(TRAIN)
    assert placement.verdict is Verdict.UNSCHEDULABLE
    assert placement.reasons[0].code is Code.NEVER_FITS
    assert world.last.assignments == []
    # And it blocks nobody.
    world.submit(deployment(replicas=2, gpu=8))
    assert world.placement(LLM).verdict is Verdict.SCHEDULED


def test_a_gang_that_fits_only_with_stock_is_placed_only_with_ecs_provision() -> None:
    for ecs, expected in ((False, {}), (True, {"a": 2})):
        world = World()
        world.clusters(a=gpus_free(8, stock=1))
        world.submit(job(components={"Worker": (2, 8)}), policy(ecs_provision=ecs))
        assert world.assigned(TRAIN) == expected


def test_a_gang_prefers_running_nodes_over_stock_inside_a_group_only() -> None:
    world = World()
    world.clusters(a=node_class(nodes=0, stock=9), b=gpus_free(8, 8), c=gpus_free(8, 8))
    world.submit(job("one", {"Worker": (2, 8)}), policy(["a", "b"], ["c"], ecs_provision=True))
    assert world.assigned("test/PyTorchJob/one") == {"b": 2}
    world.submit(job("two", {"Worker": (2, 8)}))
    assert world.assigned("test/PyTorchJob/two") == {"a": 2}


def test_a_deployment_under_a_gang_policy_is_not_split() -> None:
    world = World()
    world.clusters(a=2, b=3)
    world.submit(deployment(replicas=3), policy(gang=True))
    assert world.assigned(LLM) == {"b": 3}


def test_a_job_that_grows_grows_where_it_is_or_stays_as_it_was() -> None:
    world = World()
    world.clusters(a=gpus_free(4), b=gpus_free(8, 8))
    world.submit(job(components={"Worker": (2, 1)}, digest="1"), policy(["a"], ["b"]))
    assert world.assigned(TRAIN) == {"a": 2}
    world.submit(job(components={"Worker": (4, 1)}, digest="2", version=1))
    assert world.assigned(TRAIN) == {"a": 4}
    world.submit(job(components={"Worker": (6, 1)}, digest="3", version=2))
    placement = world.placement(TRAIN)
    assert world.assigned(TRAIN) == {"a": 4}
    assert (placement.verdict, placement.unplaced) == (Verdict.PARTIALLY_SCHEDULED, 2)


def test_a_job_that_stays_where_it_is_does_not_say_that_it_would_not_fit_elsewhere() -> None:
    world = World()
    world.clusters(a=0, b=gpus_free(8, 8))
    world.submit(job(components={"Worker": (2, 4)}, digest="1"), policy(["a"], ["b"]))
    assert world.codes(TRAIN)["a"] != "", "while a has no room it says so"
    world.observe("a", gpus_free(8, 8))
    world.submit(job(components={"Worker": (3, 4)}, digest="2", version=1))
    assert world.assigned(TRAIN) == {"b": 3}
    assert "a" not in world.codes(TRAIN)


# Divisions that do not look at capacity.


def test_duplicated_gives_every_candidate_all_replicas() -> None:
    world = World()
    world.clusters(a=5, b=0)
    world.submit(deployment(replicas=3), policy(division=DivisionType.DUPLICATED))
    placement = world.placement(LLM)
    assert world.assigned(LLM) == {"a": 3, "b": 3}
    assert (placement.verdict, placement.replicas, placement.unplaced) == (Verdict.SCHEDULED, 6, 0)
    world.clusters(c=1)
    assert world.assigned(LLM) == {"a": 3, "b": 3, "c": 3}


def test_aggregated_uses_few_clusters() -> None:
    world = World()
    world.clusters(a=3, b=6, c=2)
    world.submit(deployment(replicas=5), policy(division=DivisionType.AGGREGATED))
    assert world.assigned(LLM) == {"b": 5}
    world.feed(Scaled(LLM, 8))
    assert world.assigned(LLM) == {"a": 2, "b": 6}


def test_groups_without_dynamic_weights_do_not_overflow() -> None:
    world = World()
    world.clusters(a=3, b=6)
    world.submit(deployment(replicas=5), policy(["a"], ["b"], division=DivisionType.AGGREGATED))
    assert world.assigned(LLM) == {"b": 5}


@pytest.mark.parametrize(
    ("division", "steps"),
    [
        (
            DivisionType.AGGREGATED,
            [(6, {"a": 6}), (10, {"a": 6, "b": 4}), (12, {"a": 6, "b": 6}), (8, {"a": 4, "b": 4})],
        ),
        (DivisionType.STATIC, [(6, {"a": 6}), (10, {"a": 5, "b": 5}), (11, {"a": 6, "b": 5}), (6, {"a": 3, "b": 3})]),
    ],
)
def test_a_group_may_mean_clusters_of_a_higher_one_again(
    division: DivisionType, steps: list[tuple[int, dict[str, int]]]
) -> None:
    world = World()
    world.clusters(a=6, b=6)
    world.submit(deployment(replicas=steps[0][0]), policy(["a"], ["b", "a"], division=division))
    for replicas, expected in steps:
        world.feed(Scaled(LLM, replicas))
        assert world.assigned(LLM) == expected


def served_in_turn(division: DivisionType) -> World:
    """Groups by the labels a and b, then a last one that means cluster a by its name."""
    world = World()
    world.clusters(a=9, b=9)
    for name in ("a", "b"):
        world.feed(ClusterRegistered(ClusterSpec(name, labels=labels({name: "ok"}))))
    groups = (
        ClusterAffinity("first", labels=LabelSelector(labels({"a": "ok"}))),
        ClusterAffinity("second", labels=LabelSelector(labels({"b": "ok"}))),
        ClusterAffinity("last", cluster_names=("a",)),
    )
    rule = policy(division=division)
    rule = replace(rule, placement=replace(rule.placement, prioritized=True, groups=groups))
    world.submit(deployment(replicas=3), rule)
    assert (world.assigned(LLM), world.placement(LLM).group) == ({"a": 3}, "first")
    return world


@pytest.mark.parametrize("restart", [False, True])
def test_copies_whose_cluster_leaves_the_serving_group_are_not_held_by_a_later_one(restart: bool) -> None:
    world = served_in_turn(DivisionType.DUPLICATED)
    if restart:
        world.restart()
    world.feed(ClusterRegistered(ClusterSpec("a")))
    assert (world.assigned(LLM), world.placement(LLM).group) == ({"b": 3}, "second")
    world.feed(ClusterRegistered(ClusterSpec("a", labels=labels({"a": "ok"}))))
    assert world.assigned(LLM) == {"b": 3}, "the search goes on from the group that serves"
    world.feed(ClusterRegistered(ClusterSpec("b")))
    assert (world.assigned(LLM), world.placement(LLM).group) == ({"a": 3}, "last")


@pytest.mark.parametrize("division", [DivisionType.AGGREGATED, DivisionType.STATIC])
def test_replicas_whose_cluster_left_the_serving_group_move_with_the_next_decision(division: DivisionType) -> None:
    world = served_in_turn(division)
    world.feed(ClusterRegistered(ClusterSpec("a")))
    assert (world.assigned(LLM), world.placement(LLM).group) == ({"a": 3}, "first")
    world.feed(Scaled(LLM, 4))
    assert (world.assigned(LLM), world.placement(LLM).group) == ({"b": 4}, "second")


def test_what_is_in_two_groups_stays_in_the_one_that_serves() -> None:
    world = World()
    world.clusters(a=6, b=6)
    world.submit(deployment(replicas=10), policy(["a"], ["b", "a"], division=DivisionType.STATIC))
    assert (world.assigned(LLM), world.placement(LLM).group) == ({"a": 5, "b": 5}, "g1")
    world.feed(Scaled(LLM, 4))
    assert world.assigned(LLM) == {"a": 2, "b": 2}
    world.feed(PolicyChanged(policy(["a"], ["b", "a"], version=2)))
    assert world.placement(LLM).group == "", "groups that overflow have none that serves"


# Candidates (1.2).


def test_why_a_cluster_is_no_candidate() -> None:
    world = World()
    full = gpus_free(8)
    world.feed(
        ClusterRegistered(ClusterSpec("tainted", taints=(Taint("maintenance", "NoSchedule", "true"),))),
        InventoryChanged(inventory("tainted", full, at=world.now)),
        ClusterRegistered(ClusterSpec("other-apis")),
        InventoryChanged(inventory("other-apis", full, at=world.now, apis=frozenset({"batch/v1/Job"}))),
        ClusterRegistered(ClusterSpec("no-namespace")),
        InventoryChanged(inventory("no-namespace", full, at=world.now, namespaces=frozenset({"default"}))),
        ClusterRegistered(ClusterSpec("silent")),
        ClusterRegistered(ClusterSpec("old")),
        InventoryChanged(inventory("old", full, at=world.now - 31)),
    )
    names = ["tainted", "other-apis", "no-namespace", "silent", "old", "unknown"]
    world.submit(deployment(), policy(names))
    assert world.codes(LLM) == {
        "tainted": "ClusterTainted",
        "other-apis": "ApiNotServed",
        "no-namespace": "NamespaceMissing",
        "silent": "InventoryMissing",
        "old": "InventoryStale",
        "unknown": "ClusterUnknown",
    }
    world.observe("old", full)
    assert world.assigned(LLM) == {"old": 1}


def test_a_policy_may_create_namespaces_and_tolerate_taints() -> None:
    world = World()
    world.feed(
        ClusterRegistered(ClusterSpec("a", taints=(Taint("maintenance", "NoSchedule", "true"),))),
        InventoryChanged(inventory("a", gpus_free(8), at=world.now, namespaces=frozenset())),
    )
    strict = policy(create_namespaces=True)
    rule = replace(strict.placement, tolerations=(Toleration("maintenance", "Exists"),))
    world.submit(deployment(), replace(strict, placement=rule))
    assert world.assigned(LLM) == {"a": 1}
    assert world.assignment(LLM, "a").create_namespaces


def test_no_new_replicas_on_a_stale_cluster_but_what_runs_stays() -> None:
    world = World()
    world.clusters(a=4)
    world.submit(deployment(replicas=2), policy())
    world.now += 31
    world.feed(Scaled(LLM, 4))
    assert world.assigned(LLM) == {"a": 2}
    assert world.codes(LLM)["a"] == "InventoryStale"
    world.refresh()
    assert world.assigned(LLM) == {"a": 4}


def test_no_clusters_and_no_policy() -> None:
    world = World()
    world.submit(deployment())
    assert world.codes(LLM) == {"": "NoMatchingPolicy"}
    assert world.placement(LLM).verdict is Verdict.UNSCHEDULABLE
    world.feed(PolicyChanged(policy()))
    assert world.codes(LLM) == {"": "NoClusters"}
    world.clusters(a=1)
    assert world.assigned(LLM) == {"a": 1}


def test_an_unknown_node_label_never_fits() -> None:
    world = World()
    world.clusters(a=gpus_free(8, node_labels={"gpu": "a100"}))
    shape = PodShape(resources(amounts(gpu=1)), node_selector=labels({"gpu": "h100"}))
    world.submit(deployment(shape=shape), policy())
    assert world.codes(LLM) == {"": "NeverFits", "a": "NoMatchingNodes"}
    assert world.message(LLM, "a") == "no node has the labels gpu=h100"


# Which policy (1.2).


def test_the_claiming_policy_stays_and_the_second_is_reported() -> None:
    world = World()
    world.clusters(a=4, b=4)
    world.submit(deployment(), policy(["a"], name="zeta"))
    world.feed(PolicyChanged(policy(["b"], name="alpha")))
    assert world.assigned(LLM) == {"a": 1}
    world.feed(Scaled(LLM, 2))
    assert world.assigned(LLM) == {"a": 2}
    assert world.codes(LLM)[""] == "PolicyIgnored"
    assert "PropagationPolicy/test/alpha" in world.message(LLM)


def test_removing_the_policy_changes_nothing_that_is_placed() -> None:
    world = World()
    world.clusters(a=4)
    world.submit(deployment(replicas=2), policy())
    before = dict(world.assignments)
    world.feed(PolicyRemoved("PropagationPolicy/test/pp"))
    assert world.assigned(LLM) == {"a": 2}
    assert world.codes(LLM) == {"": "NoMatchingPolicy"}
    assert world.assignments == before


def test_an_edited_policy_pours_anew() -> None:
    world = World()
    world.clusters(a=4, b=4)
    world.submit(deployment(replicas=2), policy(["a"]))
    world.feed(PolicyChanged(policy(["b"], version=2)))
    assert world.assigned(LLM) == {"b": 2}
    assert world.states(LLM) == {"a": "Removing", "b": "Active"}


def test_suspension() -> None:
    world = World()
    world.clusters(a=4)
    world.submit(deployment(), policy(suspend_scheduling=True))
    assert world.placement(LLM).verdict is Verdict.SUSPENDED
    assert world.assignments == {}
    world.feed(PolicyChanged(policy(version=2, suspend_dispatching=True)))
    assert world.assigned(LLM) == {"a": 1}
    assert world.assignment(LLM, "a").suspended
    assert world.codes(LLM) == {"": "Suspended"}
    world.feed(PolicyChanged(policy(version=3)))
    assert not world.assignment(LLM, "a").suspended
    world.feed(PolicyChanged(policy(version=4, suspend_dispatching_on=("a", "elsewhere"))))
    assert world.assignment(LLM, "a").suspended
    assert world.codes(LLM) == {"a": "Suspended"}


# ResourcePolicy and serverless regions (15).

SELECTOR = {"app": "nginx"}


def region(name: str, t4: int | None) -> VirtualNode:
    return VirtualNode(
        f"vk-{name}",
        labels({"type": "virtual-kubelet", "topology.kubernetes.io/region": name}),
        (Taint("virtual-kubelet.io/provider", "NoSchedule", "alibabacloud"),),
        None if t4 is None else (ModelStock("T4", t4),),
    )


def units(version: int = 1) -> ResourcePolicy:
    def unit(where: str) -> ResourceUnit:
        return ResourceUnit(
            UnitResource.ACS,
            labels({"type": "virtual-kubelet", "topology.kubernetes.io/region": where}),
            pod_labels=labels(
                {"alibabacloud.com/serverless-region-id": where, "alibabacloud.com/gpu-model-series": "T4"}
            ),
        )

    return ResourcePolicy(
        "rp", "test", (unit("r1"), unit("r2")), LabelSelector(labels(SELECTOR)), version=version, digest=f"u{version}"
    )


def bare(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """Slots without the ids of their units."""
    assert all(slot.variant for slot in slots)
    return tuple(replace(slot, variant="") for slot in slots)


def serverless(replicas: int = 1) -> Workload:
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llm", "namespace": "test"},
        "spec": {"template": {"metadata": {"labels": SELECTOR}, "spec": {"containers": []}}},
    }
    return deployment(replicas=replicas, pod_labels=SELECTOR, manifest=manifest)


def test_t18_the_second_region_takes_what_the_first_has_no_stock_for() -> None:
    world = World()
    world.virtual("reg", region("r1", 0), region("r2", 4))
    world.feed(PolicyChanged(units()))
    world.submit(serverless(2), policy())
    share = world.placement(LLM).shares[0]
    assert bare(share.slots) == (Slot("main", "vk-r2", 2, Source.VIRTUAL, 1),)
    patched = {p["path"]: p["value"] for p in world.assignment(LLM, "reg").patches}
    spec = "/spec/template/spec"
    assert patched[f"{spec}/nodeSelector/topology.kubernetes.io~1region"] == "r2"
    assert patched["/spec/template/metadata/labels/alibabacloud.com~1serverless-region-id"] == "r2"
    assert patched["/spec/template/metadata/labels/alibabacloud.com~1compute-class"] == "general-purpose"
    assert patched[f"{spec}/tolerations"] == [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]


def test_t19_all_regions_empty_waits_and_then_takes_the_first_that_has_stock() -> None:
    world = World()
    world.virtual("reg", region("r1", 0), region("r2", 0))
    world.feed(PolicyChanged(units()))
    world.submit(serverless(), policy())
    assert world.placement(LLM).verdict is Verdict.UNSCHEDULABLE
    assert world.codes(LLM)["reg"] == "NoUnitHasRoom"
    world.virtual("reg", region("r1", 2), region("r2", 0))
    assert bare(world.placement(LLM).shares[0].slots) == (Slot("main", "vk-r1", 1, Source.VIRTUAL, 0),)


def test_serverless_stock_is_shared_between_workloads() -> None:
    world = World()
    world.virtual("reg", region("r1", 2), region("r2", 4))
    world.feed(PolicyChanged(units()), PolicyChanged(policy()))
    first = deployment("one", 2, pod_labels=SELECTOR, arrival=1)
    second = deployment("two", 2, pod_labels=SELECTOR, arrival=2)
    world.feed(WorkloadSubmitted(second), WorkloadSubmitted(first))
    assert world.placement("test/Deployment/one").shares[0].slots[0].node_class == "vk-r1"
    assert world.placement("test/Deployment/two").shares[0].slots[0].node_class == "vk-r2"


def test_t22_an_edited_resource_policy_leaves_placed_pods_alone() -> None:
    world = World()
    world.virtual("reg", region("r1", 4), region("r2", 4))
    world.feed(PolicyChanged(units()))
    world.submit(serverless(2), policy())
    before = world.assignment(LLM, "reg")
    edited = units(2)
    edited = ResourcePolicy("rp", "test", tuple(reversed(edited.units)), edited.selector, version=2, digest="u2")
    out = world.feed(PolicyChanged(edited))
    assert out.assignments == []
    world.restart()
    assert world.assignment(LLM, "reg") == before


def test_acs_pods_go_to_the_region_that_they_name_without_any_resource_policy() -> None:
    world = World()
    world.virtual("reg", region("r1", None), region("r2", None), spec=ClusterSpec("reg", region="r1"))
    pod_labels = {"alibabacloud.com/acs": "true", "alibabacloud.com/serverless-region-id": "r2"}
    world.submit(deployment("named", pod_labels=pod_labels), policy())
    assert world.placement("test/Deployment/named").shares[0].slots[0].node_class == "vk-r2"
    world.submit(deployment("own", pod_labels={"alibabacloud.com/acs": "true"}))
    assert world.placement("test/Deployment/own").shares[0].slots[0].node_class == "vk-r1"


# Queue, back-off, repetition.


def test_priority_then_arrival_decide_who_is_first_in_a_batch() -> None:
    world = World()
    world.clusters(a=1)
    world.feed(
        PolicyChanged(policy()),
        PolicyChanged(PriorityClass("high", 100)),
        WorkloadSubmitted(deployment("late", arrival=3, priority_class="high")),
        WorkloadSubmitted(deployment("early", arrival=1)),
    )
    assert world.assigned("test/Deployment/late") == {"a": 1}
    assert world.placement("test/Deployment/early").verdict is Verdict.UNSCHEDULABLE


def test_waiting_workloads_are_woken_in_order_and_only_as_far_as_they_fit() -> None:
    world = World()
    world.clusters(a=0)
    world.feed(PolicyChanged(policy()))
    for i in range(5):
        world.submit(deployment(f"w{i}", arrival=i))
    assert world.placement("test/Deployment/w3").queue_position == 4
    out = world.observe("a", gpus_free(1, 1))
    assert [p.workload for p in out.placements] == ["test/Deployment/w0", "test/Deployment/w1"]
    assert out.counters["decisions"] == 2


def test_who_waits_for_room_that_somebody_before_it_takes_is_not_tried() -> None:
    world = World()
    world.clusters(a=0, b=0)
    world.feed(PolicyChanged(policy()))
    for i in range(1, 5):
        world.submit(deployment(f"w{i}", gpu=i, arrival=i))
        world.submit(job(f"j{i}", {"Worker": (1, i)}, arrival=10 + i))
    out = world.observe("a", gpus_free(3))
    assert [p.workload for p in out.placements] == ["test/Deployment/w1", "test/Deployment/w2"]
    assert out.counters["decisions"] == 2
    out = world.observe("b", gpus_free(3, 1))
    assert [p.workload for p in out.placements] == ["test/Deployment/w3", "test/PyTorchJob/j1"]
    assert out.counters["decisions"] == 2


def test_who_waits_for_room_that_somebody_takes_may_take_it_from_others() -> None:
    world = World()
    world.clusters(a=0)
    world.feed(PolicyChanged(policy()), PolicyChanged(PriorityClass("high", 100)))
    world.submit(deployment("low", replicas=2, arrival=1))
    world.submit(deployment("first", priority_class="high", arrival=2))
    world.submit(deployment("second", priority_class="high", arrival=3))
    out = world.observe("a", gpus_free(1, 1), gpus_free(1, name="other"))
    assert out.counters["decisions"] == 3
    assert world.assigned("test/Deployment/low") == {"a": 1}
    world.submit(deployment("third", priority_class="high", arrival=4))
    assert world.assigned("test/Deployment/third") == {"a": 1}
    assert not world.assigned("test/Deployment/low")


def test_a_cluster_that_is_registered_before_its_inventory_comes_wakes_who_waits() -> None:
    world = World()
    world.clusters(a=0)
    world.submit(deployment("one", arrival=1), policy())
    world.submit(deployment("two", arrival=2))
    world.feed(ClusterRegistered(ClusterSpec("b")))
    world.observe("b", gpus_free(1, 1))
    assert world.assigned("test/Deployment/one") == {"b": 1}
    assert world.assigned("test/Deployment/two") == {"b": 1}


def test_an_event_elsewhere_wakes_nobody() -> None:
    world = World()
    world.clusters(a=0, b=0)
    world.submit(deployment(replicas=1), policy(["a"]))
    out = world.observe("b", gpus_free(8))
    assert out.counters.get("decisions", 0) == 0


def test_back_off_doubles_to_its_maximum_and_writes_nothing_new() -> None:
    world = World(Settings(stale_after=3600))
    world.clusters(a=0)
    world.submit(deployment(replicas=1), policy())
    waits = []
    for _ in range(6):
        at = world.last.wake_at
        assert at is not None
        waits.append(at - world.now)
        world.now = at
        out = world.feed(Tick())
        assert out.placements == []
        assert out.counters["retries"] == 1
    assert waits == [1, 2, 4, 8, 10, 10]


def test_the_same_submission_again_is_a_no_op() -> None:
    world = World()
    world.clusters(a=4)
    world.submit(deployment(replicas=2), policy())
    out = world.submit(deployment(replicas=2, version=9))
    assert out.placements == []
    assert out.assignments == []


def test_an_unreadable_submission_stays_as_last_decided() -> None:
    world = World()
    world.clusters(a=4)
    world.submit(deployment(replicas=2), policy())
    out = world.feed(WorkloadUnreadable(LLM, "not JSON"), WorkloadUnreadable("test/Deployment/new", "not JSON"))
    assert world.assigned(LLM) == {"a": 2}
    assert world.codes(LLM) == {"": "InvalidRecord"}
    assert out.assignments == []
    assert world.codes("test/Deployment/new") == {"": "InvalidRecord"}
    world.submit(deployment(replicas=3, version=5))
    assert world.assigned(LLM) == {"a": 3}
    assert world.codes(LLM) == {}


def test_reschedule_divides_afresh() -> None:
    world = World()
    world.clusters(a=4)
    world.submit(deployment(replicas=4), policy())
    world.clusters(b=12)
    assert world.assigned(LLM) == {"a": 4}
    world.feed(RescheduleRequested(LLM))
    assert world.assigned(LLM) == {"a": 1, "b": 3}


def test_a_removed_cluster_loses_its_replicas() -> None:
    world = World()
    world.clusters(a=4, b=4)
    world.submit(deployment(replicas=4), policy(["a"], ["b"]))
    world.feed(ClusterRemoved("a"))
    assert world.assigned(LLM) == {"b": 4}
    assert world.states(LLM) == {"b": "Active"}


def test_ten_clusters_are_explained_and_the_others_counted() -> None:
    world = World()
    world.clusters(**{f"c{i:02}": 0 for i in range(15)})
    world.submit(deployment(), policy())
    named = [r for r in world.placement(LLM).reasons if r.cluster]
    assert len(named) == 10
    assert world.placement(LLM).reasons[-1].message == "5 more clusters"


def test_the_verdict_in_one_sentence() -> None:
    world = World()
    world.clusters(a=2)
    world.submit(deployment(replicas=3), policy())
    assert explain.sentence(world.placement(LLM)) == (
        f"2 of 3 pods are placed: a (2); 1 wait: a: needs 1 {GPU} in one node, largest free block 0."
    )


def test_freezing_stops_the_clock_of_reservations() -> None:
    world = World()
    world.clusters(a=1)
    world.submit(deployment("one"), policy())
    world.submit(deployment("two"))
    world.feed(FreezeChanged(True))
    world.now += 1000
    world.refresh()
    world.feed(Tick())
    assert world.placement("test/Deployment/two").verdict is Verdict.UNSCHEDULABLE
    world.feed(FreezeChanged(False))
    world.now += 899
    world.refresh()
    world.feed(Tick())
    assert world.placement("test/Deployment/two").verdict is Verdict.UNSCHEDULABLE
    world.now += 1
    world.refresh()
    world.feed(Tick())
    assert world.assigned("test/Deployment/two") == {"a": 1}
