"""The scheduler of simulated clusters."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model.cluster import Scoring
from sim.model.api import Delete, Json, Ref
from sim.model.cluster import Behaviour
from sim.model.faults import Fault, Faults, add_fault, set_faults
from sim.model.objects import condition, node_of, ready
from sim.model.scheduler.nodes import natural
from tests.support.simulation import Simulation, deployment, node, pod, pod_template

NO_SCHEDULE = {"key": "team", "value": "a", "effect": "NoSchedule"}


def affinity(*terms: list[Json], preferred: list[Json] | None = None) -> Json:
    listed = [{"matchExpressions": term} for term in terms]
    wanted: Json = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": listed}} if listed else {}
    if preferred:
        wanted["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return {"nodeAffinity": wanted}


def reason(sim: Simulation, name: str) -> str:
    found = condition(sim.get("v1", "Pod", name), "PodScheduled")
    assert found is not None
    assert (found["status"], found["reason"]) == ("False", "Unschedulable")
    return str(found["message"])


def placed(sim: Simulation, name: str) -> str:
    return node_of(sim.get("v1", "Pod", name))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, "plain"),
        ({"nodeSelector": {"gpu": "a100"}}, "a100"),
        ({"nodeSelector": {"gpu": "h100"}}, ""),
        ({"affinity": affinity([{"key": "gpu", "operator": "In", "values": ["a100", "h100"]}])}, "a100"),
        ({"affinity": affinity([{"key": "gpu", "operator": "Exists"}])}, "a100"),
        ({"affinity": affinity([{"key": "size", "operator": "Gt", "values": ["5"]}])}, "a100"),
        (
            {"affinity": affinity([{"key": "nope", "operator": "Exists"}], [{"key": "gpu", "operator": "Exists"}])},
            "a100",
        ),
        (
            {
                "affinity": affinity(
                    preferred=[
                        {"weight": 10, "preference": {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}}
                    ]
                )
            },
            "a100",
        ),
        ({"tolerations": [{"key": "team", "operator": "Exists"}], "nodeSelector": {"tainted": "yes"}}, "tainted"),
        ({"tolerations": [{"key": "team", "value": "b"}], "nodeSelector": {"tainted": "yes"}}, ""),
        ({"schedulerName": "ack-co-scheduler"}, "plain"),
        ({"schedulerName": "somebody-else"}, ""),
        ({"schedulingGates": [{"name": "wait"}]}, ""),
    ],
)
def test_which_node_a_pod_may_go_to(spec: dict[str, Any], expected: str) -> None:
    sim = Simulation(
        node("a100", labels={"gpu": "a100", "size": "10"}, cpu="32"),
        node("plain"),
        node("tainted", labels={"tainted": "yes"}, taints=[NO_SCHEDULE]),
    )
    sim.create(pod("p", pod_template(**spec)))
    assert placed(sim, "p") == expected


@pytest.mark.parametrize(("pack", "expected"), [(False, {"n-0": 2, "n-1": 2, "n-2": 2}), (True, {"n-0": 6})])
def test_pods_are_spread_or_packed(pack: bool, expected: dict[str, int]) -> None:
    sim = Simulation(*(node(f"n-{i}") for i in range(3)), behaviour=Behaviour(scoring=Scoring(packs=pack)))
    sim.create(deployment("web", 6))
    assert sim.where() == expected


@pytest.mark.parametrize(
    ("preferred", "expected"),
    [
        ({"a": 1}, {"a-0": 2, "c-0": 4}),  # alone, the lowest weight counts in full, until the node is full
        ({"a": 2, "b": 1}, {"a-0": 2, "b-0": 4}),
        ({"nothing": 100}, {"c-0": 6}),
        ({"b": 1, "a": 1}, {"a-0": 2, "b-0": 4}),  # any of both, until one is full
        ({"b": 50, "a": 1}, {"b-0": 6}),
    ],
)
def test_preferences_are_scaled_by_the_best_match(preferred: dict[str, int], expected: dict[str, int]) -> None:
    nodes = [node("a-0", labels={"kind": "a"}, pods="2", cpu="16"), node("b-0", labels={"kind": "b"}, cpu="16")]
    sim = Simulation(*nodes, node("c-0", cpu="1000", memory="10Ti"))
    terms = [
        {"weight": weight, "preference": {"matchExpressions": [{"key": "kind", "operator": "In", "values": [kind]}]}}
        for kind, weight in preferred.items()
    ]
    template = pod_template(affinity=affinity(preferred=terms), cpu="1")
    sim.create(*(pod(f"p-{i}", template) for i in range(6)))
    assert sim.where() == expected


def test_the_number_of_pods_is_a_resource() -> None:
    sim = Simulation(node("n-0", pods="2"))
    sim.create(pod("a"), pod("b"), pod("c"))
    assert reason(sim, "c") == "0/1 nodes are available: 1 Too many pods."


def test_the_message_counts_nodes_by_reason() -> None:
    sim = Simulation(
        node("small-0", gpu="4"),
        node("small-1", gpu="4", cpu="0"),
        node("tainted", gpu="8", taints=[NO_SCHEDULE]),
        node("other", gpu="8", labels={"zone": "b"}),
        *(node(f"n-{i}") for i in range(2)),
    )
    sim.patch("v1", "Node", "n-1", {"spec": {"unschedulable": True}}, namespace="")
    template = pod_template(gpu=8, affinity=affinity([{"key": "zone", "operator": "NotIn", "values": ["b"]}]))
    sim.create(pod("big", template))
    assert reason(sim, "big") == (
        "0/6 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint {team: a}, 1 node(s) were unschedulable, 3 Insufficient nvidia.com/gpu."
    )
    assert sim.events("FailedScheduling") == [reason(sim, "big")]


def test_no_nodes_at_all() -> None:
    sim = Simulation()
    sim.create(pod("p"))
    assert reason(sim, "p") == "no nodes available to schedule pods"


def test_a_pod_is_bound_when_room_comes() -> None:
    sim = Simulation(node("n-0", gpu="8"))
    sim.create(pod("a", pod_template(gpu=8)), pod("b", pod_template(gpu=8)))
    assert placed(sim, "b") == ""
    sim.delete("v1", "Pod", "a")
    assert placed(sim, "b") == "n-0"
    sim.create(pod("c", pod_template(gpu=8)))
    sim.create(node("n-1", gpu="8"))
    assert placed(sim, "c") == "n-1"


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"taints": None}},
        {"metadata": {"labels": {"ready": "yes"}}, "spec": {"taints": None}},
    ],
)
def test_a_changed_node_is_looked_at_again(change: Json) -> None:
    sim = Simulation(node("n-0", taints=[NO_SCHEDULE]))
    sim.create(pod("p"))
    assert placed(sim, "p") == ""
    sim.patch("v1", "Node", "n-0", change, namespace="")
    assert placed(sim, "p") == "n-0"


def test_more_important_pods_go_first() -> None:
    sim = Simulation(node("n-0", gpu="8"))
    sim.create(pod("running", pod_template(gpu=8)))
    for value, name in ((1000, "high"), (10, "low")):
        sim.create(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
            }
        )
    sim.create(pod("low", pod_template(gpu=8, priorityClassName="low")))
    sim.wait(1)
    sim.create(pod("high", pod_template(gpu=8, priorityClassName="high")))
    sim.delete("v1", "Pod", "running")
    assert (placed(sim, "high"), placed(sim, "low")) == ("n-0", "")


def test_older_pods_go_first() -> None:
    sim = Simulation(node("n-0", gpu="8"))
    sim.create(pod("running", pod_template(gpu=8)))
    for name in ("z-first", "a-second"):
        sim.wait(1)
        sim.create(pod(name, pod_template(gpu=8, cpu=str(len(name)))))
    sim.delete("v1", "Pod", "running")
    assert (placed(sim, "z-first"), placed(sim, "a-second")) == ("n-0", "")


def test_finished_pods_take_no_room() -> None:
    sim = Simulation(node("n-0", gpu="8"))
    sim.create(pod("a", pod_template(gpu=8, notes={"run-seconds": "10"}, restartPolicy="Never")))
    sim.create(pod("b", pod_template(gpu=8)))
    sim.wait(11)
    assert placed(sim, "b") == "n-0"


def test_pods_that_stop_take_room_until_they_are_gone() -> None:
    sim = Simulation(node("n-0", gpu="8"))
    sim.create(pod("a", pod_template(gpu=8, notes={"stop-seconds": "20"})), pod("b", pod_template(gpu=8)))
    sim.delete("v1", "Pod", "a")
    assert placed(sim, "b") == ""
    sim.wait(20)
    assert placed(sim, "b") == "n-0"


def test_many_pods_that_fail_cost_one_look_at_the_nodes() -> None:
    sim = Simulation(*(node(f"n-{i}", gpu="8") for i in range(10)))
    sim.create(deployment("big", 300, pod_template(gpu=8)))
    assert sim.phases() == {"Ready": 10, "Pending": 290}
    before = sim.drive.reconciles
    sim.do(Delete(Ref("v1", "Pod", "default", next(p for p in sim.pods() if ready(p))["metadata"]["name"])))
    assert sim.phases() == {"Ready": 10, "Pending": 290}
    assert sim.drive.reconciles - before < 30


def test_pods_of_a_workload_can_be_withheld() -> None:
    sim = Simulation(node("n-0"))
    template = pod_template()
    template["metadata"]["annotations"] = {"gpufleet.io/workload": "default/Deployment/web"}
    sim.do(*add_fault(sim.drive.view, Fault(workload="default/Deployment/web", unschedulable=2)))
    sim.create(deployment("web", 5, template), deployment("other", 2))
    assert sim.phases() == {"Ready": 5, "Pending": 2}
    assert all("withheld" in reason(sim, p["metadata"]["name"]) for p in sim.pods() if not node_of(p))
    sim.do(*set_faults(sim.drive.view, Faults()))
    assert sim.phases() == {"Ready": 7}


def test_names_sort_by_their_numbers() -> None:
    assert sorted(["a-10", "a-9", "b-1", "a"], key=natural) == ["a", "a-9", "a-10", "b-1"]
