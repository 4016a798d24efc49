"""deploy/kustomize on a real API server: the objects are taken, and the accounts in member clusters can do their work.

The accounts are made as docs/operations.md says: `kubectl apply -k`, a Secret with a token, a kubeconfig.
"""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient
from gpufleet.kube.errors import ApiStatusError
from gpufleet.kube.resources import CONFIG_MAPS, NODES
from gpufleet.kube.writes import Outcome
from gpufleet.model.cluster import ClusterSpec
from gpufleet.model.log import ClusterAccess, ClusterRegistration
from gpufleet.model.names import WORKLOAD_LABEL
from services.dispatcher.core.steps import Create, CreateNamespace, Delete, Update
from services.dispatcher.perform import perform
from services.inventory.core.snapshot import ClusterInventory, Publication
from services.inventory.settings import InventorySettings
from services.inventory.watcher import ClusterWatcher
from tests.support.clusters import Cluster
from tests.support.waiting import eventually, wait_for

KUSTOMIZE = Path(__file__).resolve().parents[2] / "deploy" / "kustomize"
KUBECTL = Path(sys.executable).parent / "kubectl"
NAMESPACE = "rights"
ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NAMESPACE}}
POD = {"containers": [{"name": "c", "image": "pause"}]}
TEMPLATE = {"metadata": {"labels": {"app": "x"}}, "spec": POD}


def kubectl(*arguments: str, kubeconfig: Path) -> str:
    done = subprocess.run(
        [KUBECTL, "--kubeconfig", kubeconfig, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def member(real_cluster: Cluster) -> Cluster:
    kubectl("apply", "-k", str(KUSTOMIZE / "member"), kubeconfig=real_cluster.kubeconfig)
    return real_cluster


def kubeconfig_of(member: Cluster, account: str, folder: Path) -> Path:
    """Step 2 of "Register a cluster"."""
    secret: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": f"{account}-token",
            "namespace": "gpufleet",
            "annotations": {"kubernetes.io/service-account.name": account},
        },
    }
    member.api.learn("v1", "Secret", "secrets", True)
    member.api.apply(secret).expect(200, 201)
    data = wait_for(lambda: member.api.get(secret).expect(200).get("data", {}).get("token"), f"a token of {account}")
    assert member.plane is not None
    path = folder / f"{account}.yaml"
    ca = str(member.plane.certificate)
    for arguments in (
        ("set-cluster", "m", "--server", member.plane.server, "--certificate-authority", ca, "--embed-certs"),
        ("set-credentials", "m", "--token", base64.b64decode(data).decode()),
        ("set-context", "m", "--cluster", "m", "--user", "m"),
        ("use-context", "m"),
    ):
        kubectl("config", *arguments, kubeconfig=path)
    return path


def workload(api_version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "x", "namespace": NAMESPACE, "labels": {WORKLOAD_LABEL: "0123456789abcdef"}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


WORKLOADS = [
    workload("apps/v1", "Deployment", {"selector": {"matchLabels": {"app": "x"}}, "template": TEMPLATE}),
    workload("batch/v1", "Job", {"suspend": True, "template": {"spec": {**POD, "restartPolicy": "Never"}}}),
    workload("v1", "Pod", POD),
    workload(
        "kubeflow.org/v1", "PyTorchJob", {"pytorchReplicaSpecs": {"Worker": {"replicas": 1, "template": TEMPLATE}}}
    ),
    workload("argoproj.io/v1alpha1", "Workflow", {"entrypoint": "x", "templates": [{"name": "x"}]}),
    workload("ray.io/v1", "RayJob", {"entrypoint": "x"}),
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": NAMESPACE}},  # a fence
]


async def connected(member: Cluster, account: str, folder: Path) -> KubeClient:
    path = await asyncio.to_thread(kubeconfig_of, member, account, folder)
    return await connect(member.name, {"kubeconfig": str(path)})


@pytest.mark.parametrize("path", ["base", "overlays/production"])
def test_the_server_takes_the_objects_of_the_control_cluster(real_cluster: Cluster, path: str) -> None:
    kubectl("apply", "-f", str(KUSTOMIZE / "base" / "namespace.yaml"), kubeconfig=real_cluster.kubeconfig)
    said = kubectl(
        "apply",
        "-k",
        str(KUSTOMIZE / path),
        "--dry-run=server",
        "--validate=strict",
        kubeconfig=real_cluster.kubeconfig,
    )
    assert said.count("deployment.apps/") == 4
    assert "job.batch/gpufleet-topics" in said


async def test_inventory_sees_everything_with_its_account(member: Cluster, tmp_path: Path) -> None:
    path = await asyncio.to_thread(kubeconfig_of, member, "gpufleet-inventory", tmp_path)
    published: list[Publication] = []
    inventory = ClusterInventory(member.name, epoch=1)
    watcher = ClusterWatcher(
        ClusterRegistration(ClusterSpec(member.name), ClusterAccess(kubeconfig=str(path))),
        inventory,
        InventorySettings(coalesce=0.0),
        lambda _, publication: published.append(publication),
    )
    watching = asyncio.create_task(watcher.run())
    try:
        await eventually(lambda: inventory.whole and published, "a whole snapshot: every list was read")
        await eventually(
            lambda: any(sum(c.node_class.nodes for c in seen.classes) == 4 for seen in published), "all four nodes"
        )
        await eventually(lambda: all(r.synced.is_set() for r in watcher.reflectors), "every list, of quotas too")
        await eventually(lambda: inventory.apis, "the served kinds")
        assert {"apps/v1/Deployment", "kubeflow.org/v1/PyTorchJob"} <= (inventory.apis or frozenset())
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_inventory_may_not_write(member: Cluster, tmp_path: Path) -> None:
    async with await connected(member, "gpufleet-inventory", tmp_path) as client:
        with pytest.raises(ApiStatusError) as caught:
            await perform(client, CreateNamespace("forbidden"))
        assert caught.value.forbidden
        with pytest.raises(ApiStatusError) as caught:
            await client.list(CONFIG_MAPS)
        assert caught.value.forbidden


@pytest.mark.parametrize("obj", WORKLOADS, ids=lambda obj: obj["kind"])
async def test_the_dispatcher_creates_changes_and_deletes(member: Cluster, tmp_path: Path, obj: dict[str, Any]) -> None:
    async with await connected(member, "gpufleet-dispatcher", tmp_path) as client:
        await perform(client, CreateNamespace(NAMESPACE))
        # No pod is taken before the namespace has its service account.
        await asyncio.to_thread(wait_for, lambda: member.api.get(ACCOUNT).status == 200, "the service account")
        created = await perform(client, Create(obj))
        assert created.outcome is Outcome.DONE
        resource = await client.resource_for(obj["apiVersion"], obj["kind"])
        changed = {**obj, "metadata": {**obj["metadata"], "annotations": {"changed": "yes"}}}

        async def updated() -> bool:  # a controller may be quicker
            live = await client.get(resource, "x", NAMESPACE)
            return (await perform(client, Update(changed, live))).outcome is Outcome.DONE

        await eventually(updated, "the change")
        listed = await client.list(resource, label_selector=WORKLOAD_LABEL)
        assert obj["kind"] == "ConfigMap" or listed.items

        async def deleted() -> bool:
            live = await client.get(resource, "x", NAMESPACE)
            return (await perform(client, Delete(live))).outcome is Outcome.DONE

        await eventually(deleted, "the deletion")


async def test_the_dispatcher_may_not_look_at_nodes(member: Cluster, tmp_path: Path) -> None:
    async with await connected(member, "gpufleet-dispatcher", tmp_path) as client:
        with pytest.raises(ApiStatusError) as caught:
            await client.list(NODES)
        assert caught.value.forbidden
        assert await client.incarnation()
