"""Preemption by priority and by quota: who has to go, who may not, and what becomes of both (specification 4.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model.cluster import NamespaceQuota
from gpufleet.model.policy import PriorityClass, ResourcePolicy, ResourceUnit, UnitResource
from gpufleet.model.quota import PREEMPTIBLE_LABELS
from gpufleet.model.reasons import Code, Verdict
from gpufleet.model.resources import labels, resources
from gpufleet.model.selectors import LabelSelector
from gpufleet.model.workload import PodShape, Workload
from services.scheduler.core.events import InventoryChanged, ObservationGone, PolicyChanged, WorkloadDeleted
from services.scheduler.core.ranking import preempts
from tests.support.quotas import GPU, quota, tree
from tests.support.scheduling import World, amounts, deployment, gpus_free, inventory, job, node_class, policy

LOW, MID, HIGH = PriorityClass("low", -10), PriorityClass("mid", 10), PriorityClass("high", 100)
WANTED = "test/PyTorchJob/wanted"


def world(*rules: Any, **clusters: Any) -> World:
    w = World()
    w.clusters(**clusters)
    w.feed(*(PolicyChanged(rule) for rule in (LOW, MID, HIGH, *(rules or (policy(),)))))
    return w


def ranked(workload: Workload, rank: str) -> Workload:
    return replace(workload, priority_class=rank)


def dep(name: str, replicas: int, rank: str = "low", **rest: Any) -> Workload:
    return ranked(deployment(name, replicas, **rest), rank)


def train(name: str, workers: int, rank: str = "low", gpu: int = 1, **rest: Any) -> Workload:
    return ranked(job(name, {"Worker": (workers, gpu)}, **rest), rank)


def placed(w: World) -> dict[str, int]:
    return {key.rpartition("/")[2]: p.placed for key, (_, p) in sorted(w.placements.items()) if p is not None}


def test_t28_a_deployment_loses_only_as_many_replicas_as_are_needed() -> None:
    w = world(a=gpus_free(8))
    w.submit(dep("victim", 8, arrival=1))
    w.submit(train("wanted", 3, "high", arrival=2))
    assert placed(w) == {"victim": 5, "wanted": 3}
    assert w.placement(WANTED).verdict is Verdict.SCHEDULED
    assert w.message(WANTED, "a") == "takes the place of test/Deployment/victim (3)"
    victim = w.placement("test/Deployment/victim")
    assert victim.verdict is Verdict.PARTIALLY_SCHEDULED
    assert victim.reasons[0].code is Code.PREEMPTED
    assert victim.reasons[0].message == (
        "lost 3 of 8 pods to test/PyTorchJob/wanted (priority 100), of higher priority"
    )
    assert victim.queue_position == 1
    assert dict(w.assignment("test/Deployment/victim", "a").components) == {"main": 5}


def test_t28_a_gang_goes_whole_and_waits_at_its_old_place() -> None:
    w = world(a=gpus_free(8))
    w.submit(train("first", 4, "low", arrival=1))
    w.submit(train("second", 4, "low", arrival=2))
    w.submit(train("later", 4, "low", arrival=3))
    w.submit(train("wanted", 2, "high", arrival=4))
    assert placed(w) == {"first": 4, "later": 0, "second": 0, "wanted": 2}
    assert w.states("test/PyTorchJob/second") == {"a": "Removing"}
    assert w.placement("test/PyTorchJob/second").queue_position == 1
    assert w.placement("test/PyTorchJob/second").verdict in (Verdict.QUEUED, Verdict.UNSCHEDULABLE)


@pytest.mark.parametrize("rank", ["mid", "high"])
def test_t28_nobody_of_equal_or_higher_priority_is_touched(rank: str) -> None:
    w = world(a=gpus_free(4))
    w.submit(dep("there", 4, rank, arrival=1))
    w.submit(train("wanted", 4, "mid", arrival=2))
    assert placed(w) == {"there": 4, "wanted": 0}


def test_a_policy_ranks_its_workloads_for_preemption_too() -> None:
    ours = policy(name="a", kinds=[("kubeflow.org/v1", "PyTorchJob")], priority_class="high")
    w = world(ours, policy(name="b", kinds=[("apps/v1", "Deployment")], priority_class="mid"), a=gpus_free(8))
    w.submit(dep("victim", 8, "high", arrival=1))
    w.submit(train("wanted", 3, "low", arrival=2))
    assert placed(w) == {"victim": 5, "wanted": 3}
    services: Any = {"name": "b", "kinds": [("apps/v1", "Deployment")]}
    # Above all, but it never takes anybody's place; then it may.
    never, top = PriorityClass("never", 1000, preempts=False), PriorityClass("top", 1000)
    w.feed(PolicyChanged(never), PolicyChanged(policy(priority_class="never", version=1, **services)))
    w.submit(dep("more", 1, "low", arrival=3))
    assert placed(w) == {"more": 0, "victim": 5, "wanted": 3}
    w.feed(PolicyChanged(top), PolicyChanged(policy(priority_class="top", version=2, **services)))
    assert placed(w)["wanted"] == 0
    assert placed(w)["victim"] + placed(w)["more"] == 8


def test_a_class_that_never_preempts_waits() -> None:
    w = world(a=gpus_free(4))
    w.feed(PolicyChanged(PriorityClass("polite", 1000, preempts=False)))
    w.submit(dep("there", 4, arrival=1))
    w.submit(train("wanted", 4, "polite", arrival=2))
    assert placed(w) == {"there": 4, "wanted": 0}


def test_what_could_not_run_then_evicts_nobody() -> None:
    w = world(a=gpus_free(4), b=gpus_free(4))
    w.submit(dep("there", 8, arrival=1))
    w.submit(train("wanted", 6, "high", arrival=2))
    assert placed(w) == {"there": 8, "wanted": 0}


def test_free_room_and_stock_go_first() -> None:
    w = world(policy(ecs_provision=True), a=gpus_free(4, stock=1))
    w.submit(dep("there", 4, arrival=1))
    w.submit(train("wanted", 4, "high", arrival=2))
    assert placed(w) == {"there": 4, "wanted": 4}


def test_stock_goes_last_if_the_policy_says_so() -> None:
    w = world(policy(ecs_provision=True, preempt_before_provision=True), a=gpus_free(4, stock=1))
    w.submit(dep("there", 4, arrival=1))
    w.submit(train("wanted", 4, "high", arrival=2))
    assert w.placement(WANTED).shares[0].slots[0].source == "running"
    # Who yielded may be placed in stock, like whoever finds nobody to yield.
    assert placed(w) == {"there": 4, "wanted": 4}
    w.submit(train("equal", 4, "low", arrival=3))
    assert placed(w)["equal"] == 4


def test_t28_the_lowest_priority_goes_first_and_of_equals_the_last_to_come() -> None:
    w = world(a=gpus_free(8))
    w.submit(dep("mid", 2, "mid", arrival=1))
    w.submit(dep("old", 2, "low", arrival=2))
    w.submit(dep("new", 4, "low", arrival=3))
    w.submit(train("wanted", 5, "high", arrival=4))
    assert placed(w) == {"mid": 2, "new": 0, "old": 1, "wanted": 5}


def test_the_cluster_with_the_least_important_victims_is_taken() -> None:
    w = world(policy(["a", "b"]), a=gpus_free(4), b=gpus_free(4))
    w.submit(train("mid", 4, "mid", arrival=1))
    w.submit(train("low", 4, "low", arrival=2))
    (spared,) = w.assigned("test/PyTorchJob/mid")
    w.submit(train("wanted", 4, "high", arrival=3))
    assert placed(w) == {"low": 0, "mid": 4, "wanted": 4}
    assert w.assigned(WANTED) != {spared: 4}


def test_one_large_gang_goes_rather_than_two_small_ones() -> None:
    w = world(a=gpus_free(4, 4))
    w.submit(train("large", 4, "low", arrival=1))
    w.submit(train("one", 2, "low", arrival=2))
    w.submit(train("two", 2, "low", arrival=3))
    w.submit(train("wanted", 4, "high", arrival=4))
    assert placed(w) == {"large": 0, "one": 2, "two": 2, "wanted": 4}


def test_t28_tiers_are_tried_in_order() -> None:
    w = world(policy(["a"], ["b"]), a=gpus_free(4), b=gpus_free(4))
    w.submit(train("mid", 4, "mid", arrival=1))
    w.submit(train("low", 4, "low", arrival=2))
    w.submit(train("wanted", 4, "high", arrival=3))
    # Who had to yield in the first tier takes, in turn, the place of who ranks lower in the second.
    assert placed(w) == {"low": 0, "mid": 4, "wanted": 4}
    assert (w.assigned(WANTED), w.assigned("test/PyTorchJob/mid")) == ({"a": 4}, {"b": 4})


def test_the_victim_moves_on_if_there_is_room_elsewhere() -> None:
    w = world(policy(), policy(["a"], name="only-a", kinds=[("kubeflow.org/v1", "PyTorchJob")], priority=1))
    w.clusters(a=gpus_free(4), b=gpus_free(4))
    w.submit(dep("victim", 4, arrival=1))
    w.submit(dep("other", 4, "mid", arrival=2))
    assert placed(w) == {"other": 4, "victim": 4}
    w.submit(train("wanted", 2, "high", arrival=3))
    found = placed(w)
    assert (found["wanted"], found["other"]) == (2, 4)
    assert found["victim"] == 2


def test_a_deployment_preempts_for_the_replicas_that_it_lacks() -> None:
    w = world(a=gpus_free(4), b=gpus_free(4))
    w.submit(dep("victim", 6, arrival=1))
    w.submit(dep("wanted", 5, "high", arrival=2))
    assert placed(w) == {"victim": 3, "wanted": 5}


def test_a_victim_that_still_runs_does_not_give_its_room_twice() -> None:
    w = world(a=gpus_free(4))
    w.submit(train("victim", 4, arrival=1))
    w.snapshot("a", gpus_free(0, allocatable={**NODE, GPU: 4}), bound={})
    w.bind("test/PyTorchJob/victim", "a", Worker=4)
    w.submit(train("wanted", 3, "high", arrival=2))
    assert placed(w) == {"victim": 0, "wanted": 3}
    assert w.state.fleet.members["a"].debt == 0
    # One GPU is left over; somebody else may have that, and no more.
    w.submit(train("small", 1, "low", arrival=3))
    w.submit(train("late", 1, "low", arrival=4))
    assert placed(w) == {"late": 0, "small": 1, "victim": 0, "wanted": 3}
    # The pods go one after the other, and then all is as it was promised.
    w.bind("test/PyTorchJob/victim", "a", Worker=2)
    w.observe("a", gpus_free(2, allocatable={**NODE, GPU: 4}))
    assert placed(w) == {"late": 0, "small": 1, "victim": 0, "wanted": 3}
    assert w.state.fleet.members["a"].debt == 0
    w.bind("test/PyTorchJob/victim", "a", Worker=0)
    w.observe("a", gpus_free(4, allocatable={**NODE, GPU: 4}))
    assert w.state.fleet.members["a"].debt == 0
    assert placed(w)["late"] == 0


NODE = {"cpu": 96_000, "memory": 2**40, "pods": 110, GPU: 8}


def test_large_pods_take_whole_nodes() -> None:
    w = world(a=gpus_free(8, 8))
    w.submit(dep("victim", 16, arrival=1))
    w.submit(train("wanted", 1, "high", gpu=8, arrival=2))
    assert placed(w) == {"victim": 8, "wanted": 1}


def test_only_nodes_that_may_run_it_count() -> None:
    shape = PodShape(resources(amounts(gpu=1)), node_selector=(("kind", "x"),))
    w = world(a=(gpus_free(2, name="x", node_labels={"kind": "x"}), gpus_free(2, name="y")))
    w.submit(dep("victim", 4, arrival=1))
    w.submit(dep("wanted", 3, "high", arrival=2, shape=shape))
    assert placed(w)["wanted"] == 2


def test_workloads_that_come_and_go_leave_nothing_behind() -> None:
    w = world(a=gpus_free(8))
    for i in range(20):
        w.submit(dep(f"w{i}", 1, arrival=i))
        w.feed(WorkloadDeleted(f"test/Deployment/w{i}"))
        w.gone(f"test/Deployment/w{i}", "a")
        w.feed(ObservationGone(f"test/Deployment/w{i}", "a"))
    assert (len(w.state.entries), w.state.victims.noted()) == (0, 0)


# Quotas.


def test_t11_the_documented_walk_through() -> None:
    """Specification 13.2: four quotas of min 10 and max 20 share 40; pods of 5 CPU, five wanted by each."""
    node = {"cpu": 40_000, "memory": 2**40, "pods": 110}
    w = World()
    w.clusters(a=node_class(allocatable=node))
    low, high = {"cpu": 10_000}, {"cpu": 20_000}
    leaves = [quota(name, low, high, f"ns{i}") for i, name in enumerate(("a1", "a2", "b1", "b2"), 1)]
    total = {"cpu": 40_000}
    a = quota("a", {"cpu": 20_000}, total, children=tuple(leaves[:2]))
    b = quota("b", {"cpu": 20_000}, total, children=tuple(leaves[2:]))
    w.feed(PolicyChanged(tree(a, b, total=total)), PolicyChanged(policy(namespace="")))
    seen = []
    for i in range(1, 5):
        shape = PodShape(resources({"pods": 1, "cpu": 5_000}))
        workload = deployment("w", 5, shape=shape, arrival=i)
        w.submit(replace(workload, key=f"ns{i}/Deployment/w", namespace=f"ns{i}", digest=f"d{i}"))
        seen.append([w.placement(f"ns{n}/Deployment/w").placed for n in range(1, i + 1)])
    assert seen == [[4], [4, 4], [3, 3, 2], [2, 2, 2, 2]]
    assert w.codes("ns1/Deployment/w")["a"] == "Preempted"
    w.refresh()
    assert [w.placement(f"ns{n}/Deployment/w").placed for n in range(1, 5)] == [2, 2, 2, 2]


def test_who_is_not_needed_after_all_is_spared_the_most_important_first() -> None:
    w = world(a=gpus_free(4, 4))
    w.submit(train("small", 2, "low", arrival=1))
    w.submit(train("large", 4, "mid", arrival=2))
    w.submit(train("rest", 2, "high", arrival=3))
    w.submit(train("wanted", 4, "high", gpu=1, arrival=4))
    # The small one goes first, but is not enough; with the large one it is not needed.
    assert placed(w) == {"large": 0, "rest": 2, "small": 2, "wanted": 4}


NEVER = PriorityClass("never", 5, preempts=False)
DEFAULT = replace(NEVER, global_default=True)


@pytest.mark.parametrize(
    ("classes", "fields", "expected"),
    [
        pytest.param([], {}, True, id="nothing is named"),
        pytest.param([NEVER], {"priority_class": "never"}, False, id="its class says Never"),
        pytest.param([NEVER], {"priority_class": "never", "priority": 7}, False, id="the class goes before a number"),
        pytest.param([NEVER], {"priority_class": "gone", "priority": 7}, True, id="a number preempts"),
        pytest.param([NEVER], {"priority_class": "gone"}, True, id="a class that is missing says nothing"),
        pytest.param([NEVER], {"Worker": "never"}, False, id="the class of a component"),
        pytest.param([NEVER], {"Master": "never"}, True, id="a Master does not rank the job"),
        pytest.param([NEVER, HIGH], {"Master": "high", "Worker": "never"}, False, id="the Worker ranks it"),
        pytest.param([NEVER, HIGH], {"Master": "never", "Worker": "high"}, True, id="whatever the Master says"),
        pytest.param([DEFAULT], {}, False, id="the global default says Never"),
        pytest.param([DEFAULT, HIGH], {"priority_class": "high"}, True, id="a class does not"),
        pytest.param([DEFAULT], {"priority_class": "gone"}, False, id="missing: the default"),
        pytest.param(
            [DEFAULT, replace(HIGH, global_default=True)], {}, False, id="the lower default, as in Kubernetes"
        ),
    ],
)
def test_who_may_take_the_place_of_others(classes: list[PriorityClass], fields: dict[str, Any], expected: bool) -> None:
    made = job("wanted", {"Master": (1, 1), "Worker": (1, 1)})
    components = tuple(replace(c, priority_class=fields.pop(c.name, "")) for c in made.components)
    workload = replace(made, components=components, **fields)
    known = {c.name: c for c in classes}
    assert preempts(workload, known) is expected


@pytest.mark.parametrize("polite", [False, True])
def test_a_class_that_never_preempts_does_not_reclaim_quota_either(polite: bool) -> None:
    w = world(a=gpus_free(4))
    rank = PriorityClass("mine", 50, preempts=not polite)
    w.feed(PolicyChanged(rank), PolicyChanged(tree(quota("one", 2, 4, "ns1"), quota("two", 2, 4, "ns2"), total=4)))
    w.feed(PolicyChanged(policy(namespace="")))
    w.submit(in_namespace("ns1", dep("borrows", 4, "mine", arrival=1)))
    w.submit(in_namespace("ns2", dep("wants", 2, "mine", arrival=2)))
    assert placed(w) == ({"borrows": 4, "wants": 0} if polite else {"borrows": 2, "wants": 2})


def in_namespace(namespace: str, workload: Workload) -> Workload:
    return replace(workload, key=f"{namespace}/{workload.kind}/{workload.name}", namespace=namespace)


def firm(workload: Workload) -> Workload:
    return replace(workload, labels=((PREEMPTIBLE_LABELS[0], "false"),))


@pytest.mark.parametrize(
    ("lower", "rank", "wants_firm", "expected"),
    [
        pytest.param(True, "high", True, {"there": 1, "wanted": 3}, id="its own of lower priority"),
        pytest.param(False, "high", True, {"there": 4, "wanted": 0}, id="not without the attribute"),
        pytest.param(True, "low", True, {"there": 4, "wanted": 0}, id="not of equal priority"),
        pytest.param(True, "high", False, {"there": 4, "wanted": 0}, id="not for what is preemptible itself"),
        pytest.param(True, "polite", True, {"there": 4, "wanted": 0}, id="not if its class says Never"),
    ],
)
def test_in_a_quota_that_preempts_lower_priority_the_guaranteed_yields_to_the_guaranteed(
    lower: bool, rank: str, wants_firm: bool, expected: dict[str, int]
) -> None:
    w = world(a=gpus_free(4))
    w.feed(
        PolicyChanged(PriorityClass("polite", 1000, preempts=False)),
        PolicyChanged(tree(quota("team", 4, 4, "test", preempts_lower=lower), total=4)),
    )
    w.submit(firm(dep("there", 4, "low", arrival=1)))
    wanted = train("wanted", 3, rank, arrival=2)
    w.submit(firm(wanted) if wants_firm else wanted)
    assert placed(w) == expected


@pytest.mark.parametrize(
    ("low", "rank", "wants_firm", "expected"),
    [
        pytest.param(2, "low", True, {"borrows": 2, "wanted": 2}, id="what is borrowed"),
        pytest.param(2, "low", False, {"borrows": 4, "wanted": 0}, id="not for what is preemptible itself"),
        pytest.param(4, "low", True, {"borrows": 4, "wanted": 0}, id="not what is within min"),
        pytest.param(3, "low", True, {"borrows": 4, "wanted": 0}, id="not more than is borrowed"),
        pytest.param(2, "lowest", True, {"borrows": 4, "wanted": 0}, id="not from a higher priority"),
    ],
)
def test_what_a_quota_has_borrowed_yields_to_its_own_that_may_not_be_preempted(
    low: int, rank: str, wants_firm: bool, expected: dict[str, int]
) -> None:
    w = world(a=gpus_free(4, 4))
    w.feed(
        PolicyChanged(PriorityClass("lowest", -1000)),
        PolicyChanged(tree(quota("team", low, 4, "test"), total=8)),
    )
    w.submit(dep("borrows", 4, "low", arrival=1))
    wanted = train("wanted", 2, rank, arrival=2)
    w.submit(firm(wanted) if wants_firm else wanted)
    assert placed(w) == expected


def test_it_takes_nothing_that_another_quota_guarantees() -> None:
    w = world(a=gpus_free(4))
    one, two = quota("one", 2, 4, "ns1", preempts_lower=True), quota("two", 2, 4, "ns2", preempts_lower=True)
    w.feed(PolicyChanged(tree(one, two, total=4)), PolicyChanged(policy(namespace="")))
    w.submit(in_namespace("ns2", firm(dep("theirs", 2, "low", arrival=1))))
    w.submit(in_namespace("ns1", firm(dep("mine", 2, "low", arrival=2))))
    w.submit(in_namespace("ns1", firm(train("wanted", 2, "high", arrival=3))))
    assert placed(w) == {"mine": 0, "theirs": 2, "wanted": 2}
    w.submit(in_namespace("ns1", firm(train("more", 1, "high", arrival=4))))
    assert placed(w)["more"] == 0


# What becomes of victims.


@pytest.mark.parametrize("size", [2, 4])
def test_who_waits_for_some_of_its_pods_has_waited_since_then_also_when_it_loses_others(size: int) -> None:
    w = world(a=gpus_free(4))
    w.submit(dep("victim", 6, arrival=1))
    assert w.placement("test/Deployment/victim").waiting_since == 1000.0
    w.now = 1030.0
    w.refresh()
    w.submit(train("wanted", size, "high", arrival=2))
    victim = w.placement("test/Deployment/victim")
    assert (victim.placed, victim.waiting_since, victim.priority, victim.queue_position) == (4 - size, 1000.0, -10, 1)
    # Who had all of its pods waits from now on.
    w.now = 1060.0
    w.submit(dep("top", 4, "top", arrival=3), policy())
    w.feed(PolicyChanged(PriorityClass("top", 1000)))
    assert placed(w)["wanted"] == 0
    assert w.placement(WANTED).waiting_since == 1060.0


# ResourceQuotas of a namespace in the member.


@pytest.mark.parametrize(
    ("namespace", "free", "expected"),
    [
        pytest.param("other", 2, {"there": 2, "wanted": 2}, id="there is quota"),
        pytest.param("other", 1, {"there": 4, "wanted": 0}, id="pods would be refused, so nobody goes"),
        pytest.param("test", 0, {"there": 2, "wanted": 2}, id="those who go leave it their quota"),
    ],
)
def test_nobody_yields_to_whom_the_namespaces_quota_refuses(
    namespace: str, free: int, expected: dict[str, int]
) -> None:
    w = world(policy(namespace=""))
    bound = NamespaceQuota("test", (GPU,), resources({GPU: 4}), resources({GPU: 4 - free}))
    w.clusters(a=gpus_free(4))
    w.submit(in_namespace(namespace, dep("there", 4, arrival=1)))
    w.feed(InventoryChanged(inventory("a", gpus_free(0), at=w.now, quotas=(bound,))))
    w.bind(f"{namespace}/Deployment/there", "a", main=4)
    w.submit(train("wanted", 2, "high", arrival=2))
    assert placed(w) == expected


# Where nothing is written to clusters.

JOBS: dict[str, Any] = {"name": "jobs", "kinds": [("kubeflow.org/v1", "PyTorchJob")]}
SERVICES: dict[str, Any] = {"name": "services", "kinds": [("apps/v1", "Deployment")]}
EVERYWHERE: dict[str, Any] = {"suspend_dispatching": True}
IN_A: dict[str, Any] = {"suspend_dispatching_on": ("a",)}


@pytest.mark.parametrize("suspended", [EVERYWHERE, IN_A])
def test_nobody_yields_to_what_is_not_dispatched(suspended: dict[str, Any]) -> None:
    w = world(policy(**JOBS, **suspended), policy(**SERVICES), a=gpus_free(4))
    w.submit(dep("there", 4, arrival=1))
    w.submit(train("wanted", 2, "high", arrival=2))
    assert placed(w) == {"there": 4, "wanted": 0}
    w.feed(PolicyChanged(policy(**JOBS, version=1)))
    assert placed(w) == {"there": 2, "wanted": 2}


@pytest.mark.parametrize("suspended", [EVERYWHERE, IN_A])
def test_what_is_not_dispatched_does_not_yield(suspended: dict[str, Any]) -> None:
    w = world(policy(**JOBS), policy(**SERVICES), a=gpus_free(4))
    w.submit(dep("there", 4, arrival=1))
    w.feed(PolicyChanged(policy(**SERVICES, **suspended, version=1)))
    w.submit(train("wanted", 2, "high", arrival=2))
    assert placed(w) == {"there": 4, "wanted": 0}
    w.feed(PolicyChanged(policy(**SERVICES, version=2)))
    w.refresh()
    w.feed(PolicyChanged(PriorityClass("any", 1)))
    assert placed(w) == {"there": 2, "wanted": 2}


def test_the_last_place_that_was_taken_is_told_whatever_was_before() -> None:
    w = world(a=gpus_free(*[8] * 3))
    w.submit(dep("victim", 24, arrival=1))
    for size in range(1, 15):
        w.submit(dep("wanted", size, "high", arrival=2))
    assert placed(w) == {"victim": 10, "wanted": 14}
    told = [r for r in w.placement("test/Deployment/wanted").reasons if r.code is Code.PREEMPTS]
    assert {r.message for r in told} == {"takes the place of test/Deployment/victim (1)"}
    lost = w.placement("test/Deployment/victim").reasons
    assert "lost 1 of 11 pods to test/Deployment/wanted (priority 100), of higher priority" in {r.message for r in lost}
    assert len(told) <= 6 and len([r for r in lost if r.code is Code.PREEMPTED]) <= 6


def test_nobody_is_placed_beyond_a_resource_quota_in_the_place_of_nobody() -> None:
    w = world(a=0)
    bound = NamespaceQuota("test", (GPU,), resources({GPU: 4}))
    w.feed(InventoryChanged(inventory("a", gpus_free(8), at=w.now, n=1, quotas=(bound,))))
    w.submit(dep("victim", 4, arrival=1))
    w.submit(dep("wanted", 3, "high", arrival=2))
    assert placed(w) == {"victim": 4, "wanted": 0}
    assert w.codes("test/Deployment/wanted") == {"a": "NamespaceQuota"}


def test_what_takes_the_place_of_others_counts_in_its_unit() -> None:
    app = {"app": "x"}
    unit = ResourceUnit(UnitResource.ECS, max=3, pod_labels=labels({"unit": "one"}))
    rule = ResourcePolicy("rp", "test", (unit,), LabelSelector(labels(app)), digest="1")
    pods = {"spec": {"template": {"metadata": {"labels": app}, "spec": {}}}}
    w = world(policy(), rule, a=gpus_free(8))
    w.submit(dep("victim", 8, arrival=1))
    w.submit(dep("wanted", 2, "high", arrival=2, pod_labels=app, manifest=pods))
    w.submit(dep("second", 2, "high", arrival=3, pod_labels=app, manifest=pods))
    assert placed(w) == {"second": 1, "victim": 5, "wanted": 2}
