"""The real kubectl against the simulated API, unchanged, over TLS with the generated authority."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sim.api.crds import install_crds
from sim.api.resources import DEPLOYMENTS, EVENTS, NODES, PODS
from tests.support.simapi import KUBECTL, Api, Kubectl, config_map, deployment, pod, served

pytestmark = pytest.mark.skipif(not KUBECTL.exists(), reason="kubectl is not installed")


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with served(tls=True) as api:
        yield api


@pytest.fixture
def kubectl(api: Api, tmp_path: Path) -> Kubectl:
    return Kubectl(api, tmp_path)


def documents(*objects: dict[str, Any]) -> str:
    return yaml.safe_dump_all(objects)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


async def test_get_prints_server_side_tables(api: Api, kubectl: Kubectl) -> None:
    now = time.time()
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
    }
    labels = {"node-role.kubernetes.io/gpu": ""}
    api.store.create(NODES, {"metadata": {"name": "n1", "labels": labels}, "status": status}, now=now)
    assert rows(await kubectl("get", "nodes"))[1][:3] == ["n1", "Ready", "gpu"]
    api.store.create(PODS, pod(node="n1"), now=now)
    running = {"phase": "Running", "podIP": "10.1.1.1", "containerStatuses": [{"ready": True, "restartCount": 2}]}
    api.store.update_status(PODS, "default", "p", running, now=now)
    assert rows(await kubectl("get", "pods", "-A"))[1][:5] == ["default", "p", "1/1", "Running", "2"]
    assert rows(await kubectl("get", "po", "-o", "wide"))[1][5:7] == ["10.1.1.1", "n1"]
    assert "10.0.0.1" in await kubectl("get", "no", "-o", "wide")
    assert (await kubectl("get", "po", "p", "-o", "jsonpath={.kind}/{.spec.nodeName}")) == "Pod/n1"
    assert (await kubectl("get", "pods", "-o", "name")).strip() == "pod/p"
    assert "No resources found" in await kubectl("get", "deploy")
    assert "NotFound" in await kubectl("get", "pod", "nope", check=False)
    install_crds(api.store, now=now)
    jobs = api.store.registry.find("kubeflow.org", "v1", "pytorchjobs")
    assert jobs is not None
    api.store.create(jobs, {"metadata": {"name": "j"}, "spec": {}}, now=now)
    api.store.update_status(jobs, "default", "j", {"conditions": [{"type": "Running"}]}, now=now)
    assert rows(await kubectl("get", "pytorchjob"))[0] == ["NAME", "STATE", "AGE"]
    assert rows(await kubectl("get", "pytorchjobs.v1.kubeflow.org"))[1][:2] == ["j", "Running"]
    assert "pytorchjob.kubeflow.org/j" in await kubectl("get", "all", "-o", "name")


async def test_apply_of_the_client(api: Api, kubectl: Kubectl) -> None:
    text = documents(deployment(), config_map())
    assert await kubectl("apply", "-f", "-", stdin=text) == "deployment.apps/web created\nconfigmap/cm created\n"
    assert "deployment.apps/web unchanged" in await kubectl("apply", "-f", "-", stdin=text)
    assert "deployment.apps/web configured" in await kubectl(
        "apply", "-f", "-", stdin=documents(deployment(replicas=5, image="nginx:2"))
    )
    made = api.store.get(DEPLOYMENTS, "default", "web")
    assert (made["spec"]["replicas"], made["metadata"]["generation"]) == (5, 2)
    misspelt = deployment()
    misspelt["spec"]["replica"] = 1
    assert 'unknown field "spec.replica"' in await kubectl("apply", "-f", "-", stdin=documents(misspelt), check=False)
    negative = await kubectl("apply", "-f", "-", stdin=documents(deployment(replicas=-1)), check=False)
    assert "spec.replicas: Invalid value: -1" in negative
    assert "no matches for kind" in await kubectl(
        "apply", "-f", "-", stdin=documents({**config_map(), "kind": "Nope"}), check=False
    )


async def test_apply_of_the_server(api: Api, kubectl: Kubectl) -> None:
    async def apply(replicas: int, *options: str, check: bool = True) -> str:
        text = documents(deployment(replicas=replicas))
        return await kubectl("apply", "--server-side", *options, "-f", "-", stdin=text, check=check)

    assert "serverside-applied" in await apply(2)
    conflict = await apply(3, "--field-manager=other", check=False)
    assert 'conflict with "kubectl": .spec.replicas' in conflict
    assert "serverside-applied" in await apply(3, "--field-manager=other", "--force-conflicts")
    assert api.store.get(DEPLOYMENTS, "default", "web")["spec"]["replicas"] == 3
    await kubectl("apply", "-f", "-", stdin=documents(config_map()))
    assert "serverside-applied" in await kubectl("apply", "--server-side", "-f", "-", stdin=documents(config_map()))


async def test_change_commands(api: Api, kubectl: Kubectl) -> None:
    await kubectl("create", "-f", "-", stdin=documents(deployment(), pod()))
    await kubectl("scale", "deploy/web", "--replicas=7")
    await kubectl("set", "image", "deploy/web", "main=nginx:9")
    await kubectl(
        "patch", "deploy", "web", "--type=json", "-p", '[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]'
    )
    await kubectl("label", "deploy", "web", "c=d")
    await kubectl("annotate", "deploy", "web", "e=f")
    made = api.store.get(DEPLOYMENTS, "default", "web")
    assert made["spec"]["replicas"] == 7
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:9"
    assert (made["metadata"]["labels"], made["metadata"]["annotations"]) == ({"a": "b", "c": "d"}, {"e": "f"})
    api.store.create(NODES, {"metadata": {"name": "n1"}}, now=time.time())
    await kubectl("cordon", "n1")
    await kubectl("taint", "node", "n1", "gpu=yes:NoSchedule")
    node = api.store.get(NODES, "", "n1")
    assert node["spec"]["unschedulable"] is True
    assert {"key": "gpu", "value": "yes", "effect": "NoSchedule"} in node["spec"]["taints"]
    assert "deleted" in await kubectl("delete", "deploy", "web")
    assert "deleted" in await kubectl("delete", "pod", "--all")
    assert api.store.count(PODS) == 0


@pytest.mark.parametrize(
    "command, name",
    [
        ("create namespace team", "namespace/team"),
        ("create configmap c --from-literal=a=b", "configmap/c"),
        ("create secret generic s --from-literal=a=b", "secret/s"),
        ("create deployment d --image=nginx --replicas=3 --port=80", "deployment.apps/d"),
        ("create job j --image=i -- sleep 1", "job.batch/j"),
        ("create cronjob k --image=i --schedule=*/5* --dry-run=none", "cronjob.batch/k"),
        ("create priorityclass high --value=7", "priorityclass.scheduling.k8s.io/high"),
        ("create quota q --hard=cpu=1", "resourcequota/q"),
        ("create pdb b --selector=a=b --min-available=50%", "poddisruptionbudget.policy/b"),
        ("create service clusterip v --tcp=80:8080", "service/v"),
        ("create serviceaccount a", "serviceaccount/a"),
        ("run r --image=nginx", "pod/r"),
    ],
)
async def test_create_commands_which_send_protobuf(kubectl: Kubectl, command: str, name: str) -> None:
    assert f"{name} created" in await kubectl(*command.split())
    assert name in await kubectl("get", name, "-o", "name")


async def test_describe_shows_the_events(api: Api, kubectl: Kubectl) -> None:
    now = time.time()
    made = api.store.create(PODS, pod(), now=now)
    event = {
        "metadata": {"name": "p.1", "namespace": "default"},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "default",
            "name": "p",
            "uid": made["metadata"]["uid"],
        },
        "reason": "ProvisionNode",
        "message": "Provision node in zone a",
        "type": "Normal",
        "count": 1,
        "source": {"component": "GOATScaler"},
    }
    api.store.create(EVENTS, event, now=now)
    api.store.create(DEPLOYMENTS, deployment(), now=now)
    assert "Provision node in zone a" in await kubectl("describe", "pod", "p")
    assert "2 desired" in await kubectl("describe", "deploy", "web")
    assert "Provision node in zone a" in await kubectl("get", "events")
    assert "Provision node in zone a" in await kubectl("events", "--for=pod/p")


async def test_looking_around(api: Api, kubectl: Kubectl) -> None:
    listed = await kubectl("api-resources")
    assert "deployments" in listed
    install_crds(api.store, now=time.time())
    assert "workflows" in await kubectl("api-resources", "--api-group=argoproj.io", "--cached=false")
    assert "apps/v1" in await kubectl("api-versions")
    assert "Server Version: v1." in await kubectl("version")
    assert "KIND:       Deployment" in await kubectl("explain", "deployment.spec")
    assert "FIELD: replicas <integer>" in await kubectl("explain", "deployment.spec.replicas")
    assert "limits" in await kubectl("explain", "pod.spec.initContainers.resources")
    assert "involvedObject" in await kubectl("explain", "events")
    assert "KIND:       Workflow" in await kubectl("explain", "workflow")
    assert "runPolicy" in await kubectl("explain", "pytorchjob.spec")
    assert "FIELD: suspend <boolean>" in await kubectl("explain", "pytorchjob.spec.runPolicy.suspend")
    assert "FIELD: replicas <integer>" in await kubectl("explain", "tfjob.spec.tfReplicaSpecs.replicas")
    assert "memoryOverhead" in await kubectl("explain", "sparkapplication.spec.driver")
    assert "is running at" in await kubectl("cluster-info")
    assert (await kubectl("auth", "can-i", "create", "pods")).strip() == "yes"
    api.store.create(PODS, pod(), now=time.time())
    assert "write no logs" in await kubectl("logs", "p", check=False)


async def test_wait_and_rollout_status(api: Api, kubectl: Kubectl) -> None:
    now = time.time()
    api.store.create(DEPLOYMENTS, deployment(), now=now)
    api.store.create(PODS, pod(), now=now)
    rollout = await kubectl.start("rollout", "status", "deploy/web", "--timeout=60s")
    waiting = await kubectl.start("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    gone = await kubectl.start("wait", "--for=delete", "pod/p", "--timeout=60s")
    status = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
    api.store.update_status(DEPLOYMENTS, "default", "web", status, now=now)
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    api.store.update_status(PODS, "default", "p", ready, now=now)
    assert b"successfully rolled out" in (await asyncio.wait_for(rollout.communicate(), 90))[0]
    assert b"condition met" in (await asyncio.wait_for(waiting.communicate(), 90))[0]
    api.store.delete(PODS, "default", "p", now=now, grace_period=0)
    assert await asyncio.wait_for(gone.wait(), 90) == 0


async def test_get_watch_prints_changes(api: Api, kubectl: Kubectl) -> None:
    now = time.time()
    api.store.create(PODS, pod(), now=now)
    process = await kubectl.start("get", "pods", "-w")
    assert process.stdout is not None

    async def next_row() -> list[str]:
        assert process.stdout is not None
        return (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()

    try:
        assert (await next_row())[:3] == ["NAME", "READY", "STATUS"]
        assert (await next_row())[:3] == ["p", "0/1", "Pending"]
        api.store.update_status(PODS, "default", "p", {"phase": "Running"}, now=now)
        assert (await next_row())[:3] == ["p", "0/1", "Running"]
        api.store.delete(PODS, "default", "p", now=now, grace_period=0)
        assert (await next_row())[0] == "p"
    finally:
        process.kill()
        await process.wait()


async def test_drain_evicts(api: Api, kubectl: Kubectl) -> None:
    now = time.time()
    api.store.graceful_pods = False
    api.store.create(NODES, {"metadata": {"name": "n1"}}, now=now)
    api.store.create(PODS, pod(node="n1"), now=now)
    assert "drained" in await kubectl("drain", "n1", "--force")
    assert api.store.count(PODS) == 0


async def test_a_wrong_token_is_said_so(api: Api, tmp_path: Path) -> None:
    api.cluster.token = "right"
    kubectl = Kubectl(api, tmp_path)
    api.cluster.token = "changed"
    assert "Unauthorized" in await kubectl("get", "--raw", "/api/v1/pods", check=False)
