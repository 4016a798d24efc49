"""The controllers that a real control plane lacks, run as clients of an API server.

The server is a simulated one whose own controllers are what a real one has; what it lacks works by way of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from gpufleet.kube.access import connect
from sim.api.crds import install_crds
from sim.api.server import SimServer
from sim.api.store import Store
from sim.model.api import Controller, Create, Delete, Json, Ref, Write
from sim.model.autoscaler import Pool, pools_writes
from sim.model.cluster import Behaviour, lent
from sim.model.controllers.deployment import DeploymentController
from sim.model.controllers.job import JobController
from sim.model.controllers.replicaset import ReplicaSetController
from sim.model.drive import Drive
from sim.model.faults import fail_workload
from sim.model.kubelet import Kubelet
from sim.model.names import NODE_POOL, SERVERLESS_STOCK, STOCK
from sim.model.nodes import NodeController
from sim.model.objects import annotations_of, condition_true, phase_of, ready
from sim.model.remote import RemoteDrive
from sim.model.runner import Runner
from sim.model.scheduler import Scheduler
from sim.model.scheduler.nodes import is_virtual
from tests.support.simulation import deployment, node, pod_template, workload
from tests.support.waiting import eventually

PYTORCH = ("kubeflow.org/v1", "PyTorchJob")
SPARK = ("sparkoperator.k8s.io/v1beta2", "SparkApplication")
WORKFLOW = ("argoproj.io/v1alpha1", "Workflow")
RUN = "sim.gpufleet.io/run-seconds"


def control_plane() -> list[Controller]:
    """What a real cluster has, with kubelets for all nodes but the virtual ones."""
    return [
        DeploymentController(),
        ReplicaSetController(),
        JobController(),
        Scheduler(),
        Kubelet(nodes="plain"),
        NodeController(manages=lambda found: not is_virtual(found)),
    ]


@dataclass
class Place:
    """The cluster as the test sees it: from the inside."""

    drive: Drive
    remote: RemoteDrive
    cluster: object

    def do(self, *writes: Write) -> None:
        self.drive.apply(writes, time.time())

    def get(self, api_version: str, kind: str, name: str, namespace: str = "default") -> Json:
        return self.drive.view.get(api_version, kind, namespace, name) or {}

    def pods(self) -> list[Json]:
        return list(self.drive.view.list("v1", "Pod", "default"))

    def ready(self) -> int:
        return sum(map(ready, self.pods()))


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    store = Store("c", now=time.time())
    install_crds(store, now=time.time())
    server = SimServer()
    cluster = server.add(store, token="t")
    drive = Drive(store, control_plane())
    runner = Runner()
    runner.add(drive)
    await server.start()
    client = await connect("c", {"inline": server.kubeconfig()})
    remote = RemoteDrive(client, lent(Behaviour(idle_seconds=0.3)))
    task = asyncio.create_task(remote.run())
    try:
        await asyncio.wait_for(remote.synced.wait(), 60)
        yield Place(drive, remote, cluster)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await client.close()
        runner.close()
        await server.stop()


def pytorch(name: str, *, workers: int, run: str = "", key: str = "") -> Json:
    template = pod_template(gpu=1)
    if run:
        template["metadata"]["annotations"] = {RUN: run}
    if key:
        template["metadata"]["annotations"]["gpufleet.io/workload"] = key
    role = {"replicas": 1, "restartPolicy": "Never", "template": template}
    specs = {"Master": role, "Worker": {**role, "replicas": workers}}
    return workload(*PYTORCH, name, {"pytorchReplicaSpecs": specs, "runPolicy": {"cleanPodPolicy": "All"}})


async def test_a_training_job_runs_and_succeeds(place: Place) -> None:
    place.do(Create(node("n-0", gpu="8")), Create(pytorch("train", workers=3, run="0.2")))
    await eventually(lambda: condition_true(place.get(*PYTORCH, "train"), "Succeeded"), "the job succeeds")
    await eventually(lambda: place.pods() == [], "its pods are cleaned up")
    counts = place.get(*PYTORCH, "train")["status"]["replicaStatuses"]
    assert counts["Master"] == {"succeeded": 1}


async def test_a_fault_fails_a_job(place: Place) -> None:
    key = "default/PyTorchJob/train"
    place.do(Create(node("n-0", gpu="8")), Create(pytorch("train", workers=1, key=key)))
    await eventually(lambda: condition_true(place.get(*PYTORCH, "train"), "Running"), "the job runs")
    place.do(*fail_workload(place.drive.view, key))
    await eventually(lambda: condition_true(place.get(*PYTORCH, "train"), "Failed"), "the job fails")


async def test_spark_and_workflow(place: Place) -> None:
    driver = {"cores": 1, "memory": "1g", "annotations": {RUN: "0.2"}}
    app = workload(*SPARK, "pi", {"type": "Scala", "driver": driver, "executor": {"instances": 2}})
    leaf = {"name": "leaf", "container": {"image": "a:1"}, "metadata": {"annotations": {RUN: "0"}}}
    main = {"name": "main", "steps": [[{"name": "a", "template": "leaf"}], [{"name": "b", "template": "leaf"}]]}
    flow = workload(*WORKFLOW, "wf", {"entrypoint": "main", "templates": [main, leaf]})
    place.do(Create(node("n-0")), Create(app), Create(flow))
    await eventually(
        lambda: place.get(*WORKFLOW, "wf").get("status", {}).get("phase") == "Succeeded", "the workflow ends"
    )
    state = {"state": "COMPLETED"}
    await eventually(lambda: place.get(*SPARK, "pi").get("status", {}).get("applicationState") == state, "Spark ends")


async def test_nodes_come_from_stock_and_go_back(place: Place) -> None:
    shape = {"cpu": "64", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "8"}
    place.do(*pools_writes(place.drive.view, [Pool("a100", {"gpu": "a100"}, [], shape, 5, 2, 0.3, "t", "z")]))
    place.do(Create(deployment("llm", 3, pod_template(gpu=8))))
    await eventually(lambda: place.ready() == 2, "two nodes are created for two pods")

    def shown() -> int:
        text = place.get("v1", "ConfigMap", STOCK, "kube-system").get("data", {}).get("a100", "{}")
        return int(json.loads(text).get("stock", -1))

    def reasons() -> set[str]:
        return {entry["reason"] for entry in place.drive.view.list("v1", "Event", "default")}

    await eventually(lambda: shown() == 0, "the stock is used up")
    await eventually(lambda: {"ProvisionNode", "NotTriggerScaleUp"} <= reasons(), "the events are written")
    created = [n for n in place.drive.view.list("v1", "Node") if annotations_of(n).get(NODE_POOL) == "a100"]
    assert all(annotations_of(entry)["kwok.x-k8s.io/node"] == "fake" for entry in created)
    place.do(Delete(Ref("apps/v1", "Deployment", "default", "llm")))
    await eventually(lambda: shown() == 2, "the instances are given back")
    await eventually(lambda: not place.drive.view.list("v1", "Node"), "the nodes are gone")


async def test_virtual_nodes_run_what_they_have_stock_for(place: Place) -> None:
    virtual = node("vk", labels={"type": "virtual-kubelet"}, gpu="1000")
    stock = json.dumps([{"gpuModelSeries": "T4", "gpus": 2}])
    virtual["metadata"]["annotations"] = {SERVERLESS_STOCK: stock}
    template = pod_template(gpu=1, labels={"alibabacloud.com/gpu-model-series": "T4"}, nodeName="vk")
    place.do(Create(virtual), Create(deployment("web", 3, template)))
    await eventually(lambda: place.ready() == 2, "stock for two")

    def left() -> int:
        text = annotations_of(place.get("v1", "Node", "vk", ""))[SERVERLESS_STOCK]
        return int(json.loads(text)[0]["gpus"])

    await eventually(lambda: left() == 0, "the stock is shown")
    await eventually(lambda: condition_true(place.get("v1", "Node", "vk", ""), "Ready"), "the virtual node is ready")
    await eventually(lambda: [phase_of(p) for p in place.pods() if not ready(p)] == ["Pending"], "one has no room")
    place.do(Delete(Ref("apps/v1", "Deployment", "default", "web")))
    await eventually(lambda: left() == 2, "the stock comes back")
