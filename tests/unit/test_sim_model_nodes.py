"""Kubelets, node failure and virtual nodes of simulated clusters."""

from __future__ import annotations

import json
from typing import Any

from sim.model.api import Json
from sim.model.cluster import Behaviour
from sim.model.faults import fail_node
from sim.model.names import SERVERLESS_STOCK, SERVERLESS_TOTAL
from sim.model.objects import condition, condition_true, node_of, phase_of, ready
from tests.support.simulation import Simulation, deployment, node, pod, pod_template

NODE = ("v1", "Node")
T4 = {"alibabacloud.com/gpu-model-series": "T4"}


def container(sim: Simulation, name: str) -> Json:
    status: Json = sim.get("v1", "Pod", name)["status"]["containerStatuses"][0]
    return status


def test_a_pod_starts_becomes_ready_and_succeeds() -> None:
    sim = Simulation(node("n-0"))
    notes = {"ready-after": "5", "run-seconds": "20"}
    sim.create(pod("p", pod_template(notes=notes, restartPolicy="Never")))
    assert container(sim, "p")["state"] == {"waiting": {"reason": "ContainerCreating"}}
    sim.wait(5)
    entry = sim.get("v1", "Pod", "p")
    assert ready(entry)
    assert entry["status"]["podIP"].startswith("10.")
    sim.wait(20)
    entry = sim.get("v1", "Pod", "p")
    assert phase_of(entry) == "Succeeded"
    assert not ready(entry)
    assert container(sim, "p")["state"]["terminated"]["exitCode"] == 0


def test_a_pod_fails_with_its_exit_code() -> None:
    sim = Simulation(node("n-0"))
    sim.create(pod("p", pod_template(notes={"run-seconds": "0", "exit-code": "42"}, restartPolicy="Never")))
    assert phase_of(sim.get("v1", "Pod", "p")) == "Failed"
    ended = container(sim, "p")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (42, "Error")


def test_a_container_that_crashes_is_started_again_with_growing_pauses() -> None:
    sim = Simulation(node("n-0"))
    sim.create(pod("p", pod_template(notes={"run-seconds": "1", "exit-code": "1"})))
    sim.wait(1)
    assert container(sim, "p")["restartCount"] == 1
    sim.wait(1)
    assert container(sim, "p")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert not ready(sim.get("v1", "Pod", "p"))
    sim.wait(10)
    assert (container(sim, "p")["restartCount"], ready(sim.get("v1", "Pod", "p"))) == (2, True)
    sim.wait(1 + 19)
    assert container(sim, "p")["restartCount"] == 2
    sim.wait(2)
    assert container(sim, "p")["restartCount"] == 3


def test_an_image_that_cannot_be_pulled() -> None:
    sim = Simulation(node("n-0"))
    sim.create(pod("p", pod_template(notes={"image-pull-error": "not found"})))
    sim.wait(100)
    entry = sim.get("v1", "Pod", "p")
    assert phase_of(entry) == "Pending"
    assert condition_true(entry, "PodScheduled")
    assert container(sim, "p")["state"]["waiting"] == {"reason": "ImagePullBackOff", "message": "not found"}


def test_a_deleted_pod_stops_in_its_own_time() -> None:
    sim = Simulation(node("n-0"), behaviour=Behaviour(stop_seconds=10))
    sim.create(pod("p"), pod("quick", pod_template(notes={"stop-seconds": "0"})))
    sim.delete("v1", "Pod", "p")
    sim.delete("v1", "Pod", "quick")
    assert [entry["metadata"]["name"] for entry in sim.pods()] == ["p"]
    sim.wait(10)
    assert sim.pods() == []


def tolerating(seconds: int, **more: Any) -> Json:
    keys = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
    listed = [{"key": k, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds} for k in keys]
    return pod_template(tolerations=listed, **more)


def test_a_node_that_fails_loses_its_pods_after_their_toleration() -> None:
    sim = Simulation(node("n-0"), node("n-1"))
    sim.create(deployment("web", 4, tolerating(60)))
    sim.do(*fail_node("n-0"))
    assert condition_true(sim.get(*NODE, "n-0", ""), "Ready")
    sim.wait(40)
    failed = sim.get(*NODE, "n-0", "")
    assert (condition(failed, "Ready") or {})["status"] == "Unknown"
    assert {(t["key"], t["effect"]) for t in failed["spec"]["taints"]} == {
        ("node.kubernetes.io/unreachable", "NoSchedule"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
    }
    assert sim.phases() == {"Ready": 2, "Running": 2}
    sim.wait(61)
    pods = sim.pods()
    assert sum(ready(p) for p in pods) == 4
    assert {node_of(p) for p in pods if ready(p)} == {"n-1"}
    assert sum(bool(p["metadata"].get("deletionTimestamp")) for p in pods) == 2, "nobody there to stop them"
    sim.do(*fail_node("n-0", down=False))
    assert condition_true(sim.get(*NODE, "n-0", ""), "Ready")
    assert sim.get(*NODE, "n-0", "")["spec"].get("taints") is None
    assert sim.phases() == {"Ready": 4}


def test_eviction_can_be_shortened() -> None:
    sim = Simulation(node("n-0"), node("n-1"), behaviour=Behaviour(grace_seconds=1, eviction_seconds=2))
    sim.create(deployment("web", 4))
    sim.do(*fail_node("n-0"))
    sim.wait(4)
    assert sum(ready(entry) for entry in sim.pods()) == 4


def test_a_node_that_comes_back_in_time_keeps_its_pods() -> None:
    sim = Simulation(node("n-0"))
    sim.create(deployment("web", 2))
    names = {entry["metadata"]["name"] for entry in sim.pods()}
    sim.do(*fail_node("n-0"))
    sim.wait(100)
    sim.do(*fail_node("n-0", down=False))
    sim.wait(400)
    assert {entry["metadata"]["name"] for entry in sim.pods() if ready(entry)} == names


def test_the_pods_of_a_deleted_node_are_gone() -> None:
    sim = Simulation(node("n-0"), node("n-1"))
    sim.create(deployment("web", 4))
    sim.delete(*NODE, "n-0", namespace="")
    assert sim.where() == {"n-1": 4}


# Virtual nodes


def virtual(name: str, stock: dict[str, int] | None, region: str = "cn-a") -> Json:
    labels = {"type": "virtual-kubelet", "topology.kubernetes.io/region": region}
    taints = [{"key": "virtual-kubelet.io/provider", "value": "alibabacloud", "effect": "NoSchedule"}]
    made = node(name, labels=labels, taints=taints, gpu="100000", cpu="1000000")
    if stock is not None:
        text = json.dumps([{"gpuModelSeries": model, "gpus": gpus} for model, gpus in stock.items()])
        made["metadata"]["annotations"] = {SERVERLESS_STOCK: text}
    return made


def serverless(gpu: int = 1, labels: dict[str, str] | None = None, **spec: Any) -> Json:
    tolerations = [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]
    return pod_template(gpu=gpu, labels=T4 if labels is None else labels, tolerations=tolerations, **spec)


def left(sim: Simulation, name: str) -> dict[str, int]:
    text = sim.get(*NODE, name, "")["metadata"]["annotations"][SERVERLESS_STOCK]
    return {entry["gpuModelSeries"]: entry["gpus"] for entry in json.loads(text)}


def test_stock_bounds_what_is_bound_to_a_virtual_node() -> None:
    sim = Simulation(virtual("vk", {"T4": 4, "A10": 8}))
    sim.create(deployment("web", 3, serverless(gpu=2)))
    assert sim.phases() == {"Ready": 2, "Pending": 1}
    assert left(sim, "vk") == {"T4": 0, "A10": 8}
    pending = next(entry for entry in sim.pods() if not node_of(entry))
    assert "no serverless stock of GPU model T4" in (condition(pending, "PodScheduled") or {})["message"]
    sim.delete("v1", "Pod", next(entry for entry in sim.pods() if ready(entry))["metadata"]["name"])
    assert sim.phases() == {"Ready": 2, "Pending": 1}
    sim.delete("apps/v1", "Deployment", "web")
    assert left(sim, "vk") == {"T4": 4, "A10": 8}


def test_virtual_nodes_take_what_other_nodes_cannot() -> None:
    sim = Simulation(virtual("vk", None), node("n-0", gpu="2"))
    sim.create(deployment("web", 5, serverless()))
    assert sim.where() == {"n-0": 2, "vk": 3}


def test_models_that_are_not_listed_have_no_stock_and_pods_without_gpus_need_none() -> None:
    sim = Simulation(virtual("vk", {"T4": 1}))
    sim.create(
        pod("other", serverless(labels={"alibabacloud.com/gpu-model-series": "H800"})),
        pod("unnamed", serverless(labels={})),
        pod("cpu", serverless(gpu=0)),
    )
    assert {entry["metadata"]["name"]: node_of(entry) for entry in sim.pods()} == {
        "other": "",
        "unnamed": "",
        "cpu": "vk",
    }


def test_a_pod_goes_to_its_region() -> None:
    sim = Simulation(virtual("vk-a", None, "cn-a"), virtual("vk-b", None, "cn-b"))
    labels = {**T4, "alibabacloud.com/serverless-region-id": "cn-b"}
    sim.create(deployment("web", 2, serverless(labels=labels)))
    assert sim.where() == {"vk-b": 2}


def test_a_pod_bound_without_stock_waits_on_its_virtual_node() -> None:
    sim = Simulation(virtual("vk", {"T4": 1}))
    sim.create(pod("a", serverless(nodeName="vk")), pod("b", serverless(nodeName="vk")))
    assert sim.phases() == {"Ready": 1, "Pending": 1}
    waiting = next(entry for entry in sim.pods() if not ready(entry))
    assert waiting["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "NoStock"
    assert len(sim.events("ProviderCreateFailed")) == 1
    sim.delete("v1", "Pod", next(entry for entry in sim.pods() if ready(entry))["metadata"]["name"])
    assert sim.phases() == {"Ready": 1}


def test_stock_that_comes_later_starts_what_waits() -> None:
    sim = Simulation(virtual("vk", {"T4": 0}))
    sim.create(pod("a", serverless()), pod("b", serverless(nodeName="vk")))
    assert sim.phases() == {"Pending": 2}
    more = json.dumps([{"gpuModelSeries": "T4", "gpus": 2}])
    sim.patch(*NODE, "vk", {"metadata": {"annotations": {SERVERLESS_TOTAL: more}}}, namespace="")
    assert sim.phases() == {"Ready": 2}
    assert left(sim, "vk") == {"T4": 0}
