"""Simulated clusters follow their documents: at the start, with what is placed, and when a document changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.plans import LLM, cluster, deployment, node_class, policy
from tests.support.scenarios import (
    TRAIN,
    ended,
    free_gpus,
    happen,
    nodes,
    placed,
    placement,
    pods,
    running,
    shares,
    training,
)

VIRTUAL_TAINT = {"key": "virtual-kubelet.io/provider", "value": "alibabacloud", "effect": "NoSchedule"}


def patch(at: str, name: str, *classes: Any, **status: Any) -> dict[str, Any]:
    if classes:
        status["nodeClasses"] = list(classes)
    return {"at": at, "patch": {"cluster": name, "merge": {"status": status}}}


def look(at: int) -> dict[str, Any]:
    """A step that only stops there."""
    return {"at": at, "expect": {LLM: {}}}


# -- what is placed at the start ---------------------------------------------------------------------------------------


def test_bound_pods_run_beside_what_is_free() -> None:
    world = ended([cluster("c1", 2, 8, full=1), policy(["c1"]), deployment(5, gpu=2), placement(c1=5)])
    assert running(world, "c1") == 5
    assert free_gpus(world, "c1") == {0: 1, 2: 1, 8: 1}
    assert nodes(world, "c1") == ["gpu-0", "gpu-1", "gpu-2"]
    assert not world.warnings


def test_room_that_bound_pods_leave_is_free() -> None:
    documents = [cluster("c1", 2), policy(["c1"]), deployment(3, gpu=2), placement(c1=3)]
    world = ended(documents, [{"at": 10, "delete": LLM}])
    assert free_gpus(world, "c1") == {8: 1}


def test_pods_that_are_not_bound_come_to_be_bound() -> None:
    world = ended([cluster("c1", 4), policy(["c1"]), deployment(4), placement(c1=(4, 1))])
    assert running(world, "c1") == 4
    assert free_gpus(world, "c1") == {1: 1}


def test_where_free_leaves_no_room_there_are_further_nodes() -> None:
    world = ended([cluster("c1", 8), policy(["c1"]), deployment(3), placement(c1=3)])
    assert running(world, "c1") == 3
    assert free_gpus(world, "c1") == {0: 1, 8: 1}
    assert len(world.warnings) == 1
    assert "c1" in world.warnings[0]
    assert LLM in world.warnings[0]


def test_bound_pods_that_fit_no_node_are_left_pending() -> None:
    documents = [cluster("c1", 0), policy(["c1"]), deployment(1, nodeSelector={"gpu": "h100"}), placement(c1=1)]
    world = ended(documents)
    assert running(world, "c1") == 0
    assert "no node class takes" in world.warnings[0]


def test_a_job_goes_on_where_it_is() -> None:
    given = placement(TRAIN, c2={"replicas": 4, "components": {"Master": 1, "Worker": 3}})
    world = ended([cluster("c1", 8), cluster("c2", 0), policy(["c1"], ["c2"]), training(3), given])
    assert shares(world, TRAIN) == {"c2": 4}
    assert running(world, "c2", TRAIN) == 4
    assert pods(world, "c1", TRAIN) == []


def test_pods_on_virtual_nodes_are_beside_the_stock() -> None:
    serverless = {
        "name": "vk",
        "labels": {"type": "virtual-kubelet"},
        "taints": [VIRTUAL_TAINT],
        "stock": [{"gpuModelSeries": "T4", "gpus": 1}],
    }
    workload = deployment(2, nodeSelector={"type": "virtual-kubelet"}, tolerations=[{"operator": "Exists"}])
    workload["spec"]["template"]["metadata"]["labels"]["alibabacloud.com/gpu-model-series"] = "T4"
    workload["spec"]["template"]["metadata"]["labels"]["alibabacloud.com/acs"] = "true"
    given = placement(c1={"replicas": 2, "sources": {"virtual": 2}})
    documents = [cluster("c1", virtualNodes=[serverless]), policy(["c1"]), workload, given]
    steps = [{"at": 10, "scale": {"workload": LLM, "replicas": 4}}]
    (_, first), (_, last) = happen(documents, steps)
    assert first is last
    assert running(last, "c1") == 3
    assert (placed(last).placed, placed(last).unplaced) == (3, 1)


def test_what_is_placed_in_a_silent_cluster_is_there_when_it_answers() -> None:
    documents = [cluster("c1", 0, health="Unreachable"), cluster("c2", 8), policy(["c1"], ["c2"])]
    documents += [deployment(3), placement(c1=3)]
    steps = [look(299), look(300), patch("310s", "c1", health="Ready")]
    seen = [(shares(world), running(world, "c1"), running(world, "c2")) for _, world in happen(documents, steps)]
    assert seen == [({"c1": 3}, 3, 0), ({"c1": 3}, 3, 0), ({"c2": 3}, 3, 3), ({"c2": 3}, 0, 3)]


def test_a_cluster_that_is_silent_from_the_start_gets_nothing_new() -> None:
    world = ended([cluster("c1", 8, health="Unreachable"), cluster("c2", 8), policy(["c1"], ["c2"]), deployment(3)])
    assert shares(world) == {"c2": 3}


# -- changes of the document -------------------------------------------------------------------------------------------


def test_nodes_are_added_and_removed() -> None:
    documents = [cluster("c1", 8), policy(["c1"])]
    steps = [
        patch("10s", "c1", node_class(8, 8, 3)),
        patch("20s", "c1", node_class(8)),
        {"at": "30s", "patch": {"cluster": "c1", "merge": {"status": {"nodeClasses": []}}}},
    ]
    seen = [free_gpus(world, "c1") for _, world in happen(documents, steps)]
    assert seen == [{8: 1}, {3: 1, 8: 2}, {8: 1}, {}]


def test_a_block_that_stays_in_the_document_changes_nothing() -> None:
    documents = [cluster("c1", 4), policy(["c1"]), deployment(4)]
    steps = [patch("10s", "c1", node_class(4, 2))]
    seen = [free_gpus(world, "c1") for _, world in happen(documents, steps)]
    assert seen == [{0: 1}, {0: 1, 2: 1}]


@pytest.mark.parametrize(("listed", "left"), [(0, 0), (2, 2), (6, 4), (8, 4)])
def test_free_is_what_is_free_from_now_on(listed: int, left: int) -> None:
    """4 of 8 are taken by the workload's pods; more than the other 4 cannot be free."""
    documents = [cluster("c1", 5), policy(["c1"]), deployment(4)]
    world = ended(documents, [patch("10s", "c1", node_class(listed))])
    assert free_gpus(world, "c1") == {left: 1}
    assert running(world, "c1") == 4


def test_taints_and_labels_of_a_class_are_changed() -> None:
    changed = node_class(8) | {
        "labels": {"gpu": "a100"},
        "taints": [{"key": "drain", "value": "true", "effect": "NoExecute"}],
    }
    documents = [cluster("c1", 8), cluster("c2", 8), policy(["c1"], ["c2"]), deployment(2)]
    world = ended(documents, [patch("10s", "c1", changed), look(130)])
    [node] = world.members["c1"].shaped.view.list("v1", "Node")
    assert node["metadata"]["labels"]["gpu"] == "a100"
    # They were driven out at 10 s and found no room in their cluster.
    assert shares(world) == {"c2": 2}


def test_nodes_that_were_created_go_when_they_were_empty_for_10_minutes() -> None:
    pool = node_class(gpus=2) | {"elastic": {"maxNodes": 5, "stock": 3, "provisionSeconds": 60}}
    documents = [
        cluster("idc", 1),
        cluster("cloud", nodeClasses=[pool]),
        policy(["idc"], ["cloud"], autoScaling={"ecsProvision": True}),
        deployment(5),
    ]
    steps = [
        look(59),
        look(60),
        {"at": 100, "scale": {"workload": LLM, "replicas": 1}},
        look(699),
        look(700),
    ]
    seen = [
        (shares(world), len(nodes(world, "cloud")), running(world, "cloud")) for _, world in happen(documents, steps)
    ]
    assert seen == [
        ({"idc": 1, "cloud": 4}, 0, 0),
        ({"idc": 1, "cloud": 4}, 0, 0),
        ({"idc": 1, "cloud": 4}, 2, 4),
        ({"idc": 1}, 2, 0),
        ({"idc": 1}, 2, 0),
        ({"idc": 1}, 0, 0),
    ]


def test_stock_in_a_document_is_what_can_be_had_beside_what_was_created() -> None:
    def pool(stock: int) -> Any:
        return node_class(gpus=1) | {"elastic": {"maxNodes": 5, "stock": stock, "provisionSeconds": 60}}

    documents = [
        cluster("cloud", nodeClasses=[pool(2)]),
        policy(["cloud"], autoScaling={"ecsProvision": True}),
        deployment(5),
    ]
    steps = [patch("100s", "cloud", pool(1)), look(170)]
    seen = [(placed(world).placed, len(nodes(world, "cloud"))) for _, world in happen(documents, steps)]
    assert seen == [(2, 0), (3, 2), (3, 3)]


def test_namespaces_come_and_go() -> None:
    documents = [cluster("c1", 8, namespaces=["test"]), policy(["c1"]), deployment(2)]
    steps = [patch("10s", "c1", namespaces=["other"]), patch("20s", "c1", namespaces=["other", "test"])]
    seen = [running(world, "c1") for _, world in happen(documents, steps)]
    assert seen == [2, 0, 2]
