"""The node autoscaler of simulated clusters (specification 3.3 to 3.5)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sim.model.api import Json
from sim.model.autoscaler import Autoscaler, Pool, pools_writes, set_stock
from sim.model.cluster import Behaviour, simulated
from sim.model.names import STOCK
from sim.model.objects import node_of, ready
from tests.support.simulation import START, Simulation, deployment, node, pod, pod_template

SHAPE = {"cpu": "64", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "8"}
PLACE = ("v1", "ConfigMap", STOCK, "kube-system")


def pool(name: str = "a100", **changed: Any) -> Pool:
    fields: dict[str, Any] = {
        "labels": {"gpu": name},
        "taints": [],
        "allocatable": SHAPE,
        "max_nodes": 10,
        "stock": 3,
        "provision_seconds": 180.0,
        "instance_type": "ecs.gn7",
        "zone": "cn-hangzhou-a",
    }
    return Pool(name, **{**fields, **changed})


def elastic(*pools: Pool, nodes: tuple[Json, ...] = (), **behaviour: Any) -> Simulation:
    sim = Simulation(*nodes, behaviour=Behaviour(**behaviour))
    sim.do(*pools_writes(sim.drive.view, pools))
    return sim


def shown(sim: Simulation, name: str = "a100") -> Json:
    entry: Json = json.loads(sim.get(*PLACE)["data"][name])
    return entry


def nodes(sim: Simulation) -> list[str]:
    return [entry["metadata"]["name"] for entry in sim.drive.view.list("v1", "Node")]


def test_the_stock_is_shown_from_the_start() -> None:
    sim = elastic(pool())
    assert shown(sim) == {
        "labels": {"gpu": "a100"},
        "taints": [],
        "allocatable": SHAPE,
        "maxNodes": 10,
        "stock": 3,
        "provisionSeconds": 180.0,
        "provisioning": [],
    }


def test_nodes_are_created_for_what_does_not_fit() -> None:
    sim = elastic(pool(), nodes=(node("n-0", gpu="8"),))
    sim.create(deployment("llm", 6, pod_template(gpu=4)))
    assert sim.phases() == {"Ready": 2, "Pending": 4}
    entry = shown(sim)
    assert (entry["stock"], entry["maxNodes"]) == (1, 8)
    assert sorted(len(coming["pods"]) for coming in entry["provisioning"]) == [2, 2]
    coming = entry["provisioning"][0]["node"]
    messages = sim.events("ProvisionNode")
    assert len(messages) == 4
    assert f"Provision node {coming} in Zone: cn-hangzhou-a with InstanceType: ecs.gn7, Triggered time " in str(
        messages
    )
    sim.wait(179)
    assert nodes(sim) == ["n-0"]
    sim.wait(2)
    assert len(nodes(sim)) == 3
    assert sim.phases() == {"Ready": 6}
    assert shown(sim)["provisioning"] == []
    assert shown(sim)["stock"] == 1
    assert sim.refused == []


@pytest.mark.parametrize(
    ("bounds", "message"),
    [({"stock": 1}, "NodePool NoStock"), ({"max_nodes": 1}, "NodePool MaxSizeReached")],
)
def test_what_has_no_stock_stays_pending_and_says_so(bounds: dict[str, Any], message: str) -> None:
    sim = elastic(pool(**bounds))
    sim.create(deployment("llm", 3, pod_template(gpu=8)))
    assert len(sim.events("ProvisionNode")) == 1
    assert sim.events("NotTriggerScaleUp") == [message, message]
    sim.wait(400)
    assert sim.phases() == {"Ready": 1, "Pending": 2}
    assert len(sim.events("NotTriggerScaleUp")) == 2


def test_stock_that_comes_later_is_used() -> None:
    sim = elastic(pool(stock=0))
    sim.create(pod("p", pod_template(gpu=8)))
    assert len(sim.events("NotTriggerScaleUp")) == 1
    sim.do(*set_stock(sim.drive.view, "a100", stock=1))
    assert len(sim.events("ProvisionNode")) == 1
    sim.wait(181)
    assert sim.phases() == {"Ready": 1}


def test_stock_that_vanishes_cancels_nodes_on_their_way() -> None:
    sim = elastic(pool(stock=2))
    sim.create(deployment("llm", 2, pod_template(gpu=8)))
    assert len(shown(sim)["provisioning"]) == 2
    sim.do(*pools_writes(sim.drive.view, [pool(stock=1)]))
    assert len(shown(sim)["provisioning"]) == 1
    assert sim.events("NotTriggerScaleUp") == ["NodePool NoStock"]
    sim.wait(400)
    assert sim.phases() == {"Ready": 1, "Pending": 1}


@pytest.mark.parametrize(
    "spec",
    [{"nodeSelector": {"gpu": "h100"}}, {"gpu": 9}],
)
def test_pods_that_no_pool_could_take_order_nothing(spec: dict[str, Any]) -> None:
    sim = elastic(pool())
    sim.create(pod("p", pod_template(**{"gpu": 8, **spec})))
    assert shown(sim)["stock"] == 3
    assert sim.events("ProvisionNode") == sim.events("NotTriggerScaleUp") == []


def test_taints_of_a_pool_keep_pods_away() -> None:
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    sim = elastic(pool(taints=[taint]))
    sim.create(pod("a", pod_template(gpu=8)))
    sim.create(pod("b", pod_template(gpu=8, tolerations=[{"key": "gpu", "operator": "Exists"}])))
    sim.wait(181)
    assert {entry["metadata"]["name"]: bool(node_of(entry)) for entry in sim.pods()} == {"a": False, "b": True}


def test_the_pool_that_wastes_least_is_chosen() -> None:
    small = pool("small", allocatable={**SHAPE, "nvidia.com/gpu": "1", "cpu": "8"})
    sim = elastic(pool("big"), small)
    sim.create(pod("p", pod_template(gpu=1)))
    assert (shown(sim, "big")["stock"], shown(sim, "small")["stock"]) == (3, 2)


def test_t5_empty_nodes_go_and_their_instances_come_back() -> None:
    sim = elastic(pool(), nodes=(node("n-0", gpu="8"),), idle_seconds=60)
    sim.create(deployment("llm", 3, pod_template(gpu=8)))
    sim.wait(181)
    assert (len(nodes(sim)), shown(sim)["stock"]) == (3, 1)
    sim.patch("apps/v1", "Deployment", "llm", {"spec": {"replicas": 1}})
    sim.wait(59)
    assert len(nodes(sim)) == 3
    sim.wait(2)
    assert (len(nodes(sim)), shown(sim)["stock"]) in ((1, 3), (2, 2))
    sim.delete("apps/v1", "Deployment", "llm")
    sim.wait(61)
    assert (nodes(sim), shown(sim)["stock"]) == (["n-0"], 3)


def test_a_node_that_is_used_again_stays() -> None:
    sim = elastic(pool(), idle_seconds=60)
    sim.create(pod("a", pod_template(gpu=8)))
    sim.wait(181)
    sim.delete("v1", "Pod", "a")
    sim.wait(50)
    sim.create(pod("b", pod_template(gpu=8)))
    sim.wait(200)
    assert len(nodes(sim)) == 1
    assert ready(sim.get("v1", "Pod", "b"))


def test_a_node_is_closed_before_it_goes_and_opened_if_a_pod_came_after_all() -> None:
    controllers = [c for c in simulated() if not isinstance(c, Autoscaler)]
    sim = Simulation(controllers=[*controllers, Autoscaler(idle_seconds=60, drain_seconds=5)])
    sim.do(*pools_writes(sim.drive.view, [pool()]))
    sim.create(pod("a", pod_template(gpu=8)))
    sim.wait(181)
    [name] = nodes(sim)
    sim.delete("v1", "Pod", "a")
    sim.wait(61)
    assert sim.get("v1", "Node", name, "")["spec"].get("unschedulable") is True
    crossed = pod("b", pod_template(gpu=8))
    crossed["spec"]["nodeName"] = name
    sim.create(crossed)
    sim.wait(10)
    assert "unschedulable" not in sim.get("v1", "Node", name, "")["spec"]
    assert ready(sim.get("v1", "Pod", "b"))
    sim.delete("v1", "Pod", "b")
    sim.wait(64)
    assert nodes(sim) == [name]
    sim.wait(2)
    assert nodes(sim) == []


def test_a_pod_that_found_room_elsewhere_does_not_order_twice() -> None:
    sim = elastic(pool(), nodes=(node("n-0", gpu="8"),))
    sim.create(pod("a", pod_template(gpu=8)), pod("b", pod_template(gpu=8)))
    sim.wait(100)
    sim.delete("v1", "Pod", "a")
    sim.create(pod("c", pod_template(gpu=8)))
    assert len(shown(sim)["provisioning"]) == 1, "the node on its way serves the newcomer"
    sim.wait(100)
    assert sim.phases() == {"Ready": 2}


def test_a_cluster_without_pools_has_no_stock() -> None:
    sim = Simulation()
    sim.create(pod("p", pod_template(gpu=8)))
    assert sim.drive.view.get("v1", "ConfigMap", "kube-system", STOCK) is None
    assert sim.drive.next_wake() is None
    assert sim.now == START
