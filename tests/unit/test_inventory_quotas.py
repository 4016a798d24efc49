"""ResourceQuotas of members: what inventory reads, what simulated clusters count, and what comes of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gpufleet.kube.reflector import Changed, Removed, Replaced
from gpufleet.model.cluster import ClusterSpec, FreeBlock, Inventory, NamespaceQuota, NodeClass
from gpufleet.model.log import ClusterAccess, ClusterRegistration
from gpufleet.model.resources import resources
from gpufleet.wire import documents
from services.inventory.core.objects import quota_from
from services.inventory.core.snapshot import ClusterInventory
from services.inventory.settings import InventorySettings
from services.inventory.watcher import ClusterWatcher
from sim.fleet import SimulatedCluster, build_cluster
from sim.model.api import Create, Delete, Patch, Ref
from sim.model.names import USED_BESIDES

GPU = "nvidia.com/gpu"


def quota(
    hard: dict[str, Any], used: dict[str, Any] | None = None, name: str = "q", namespace: str = "test", **spec: Any
) -> dict[str, Any]:
    """A ResourceQuota as the cluster gives it; without ``used`` it was not counted yet."""
    made: dict[str, Any] = {"metadata": {"name": name, "namespace": namespace}, "spec": {"hard": hard, **spec}}
    if used is not None:
        made["status"] = {"hard": hard, "used": used}
    return made


@pytest.mark.parametrize(
    "found, bounds, hard, used",
    [
        (quota({"requests.cpu": "4"}, {"requests.cpu": "1500m"}), ("cpu",), {"cpu": 4000}, {"cpu": 1500}),
        (
            quota({"cpu": "4", "pods": "5"}, {"cpu": "0", "pods": "2"}),
            ("cpu", "pods"),
            {"cpu": 4000, "pods": 5},
            {"pods": 2},
        ),
        (quota({f"requests.{GPU}": "8"}), (GPU,), {GPU: 8}, {}),
        (quota({f"requests.{GPU}": "0"}, {}), (GPU,), {}, {}),
        (
            quota({"count/pods": "3", "pods": "7"}, {"pods": "1", "count/pods": "2"}),
            ("pods",),
            {"pods": 3},
            {"pods": 2},
        ),
        (
            quota({"requests.cpu": "4", "limits.cpu": "8", "count/deployments.apps": "1"}, {}),
            ("cpu",),
            {"cpu": 4000},
            {},
        ),
        (quota({"memory": "1Gi", "requests.storage": "1Ti"}, {}), ("memory",), {"memory": 2**30}, {}),
        (quota({"requests.cpu": "lots", "pods": "1"}, {}), ("pods",), {"pods": 1}, {}),
    ],
)
def test_what_pods_may_ask_for(
    found: dict[str, Any], bounds: tuple[str, ...], hard: dict[str, int], used: dict[str, int]
) -> None:
    expected = NamespaceQuota("test", bounds, resources(hard), resources(used))
    assert quota_from(found).bounds == expected


@pytest.mark.parametrize(
    "found",
    [
        quota({"limits.cpu": "4", "configmaps": "9"}, {}),
        quota({}, {}),
        quota({"cpu": "1"}, {}, scopes=["BestEffort"]),
        quota(
            {"cpu": "1"}, {}, scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}
        ),
    ],
)
def test_what_does_not_bound_every_pod_is_left_to_the_cluster(found: dict[str, Any]) -> None:
    assert quota_from(found).bounds is None


def test_a_document_and_an_object_mean_the_same() -> None:
    hard, used = {"requests.cpu": "4", "count/pods": "7"}, {"requests.cpu": "1", "count/pods": "2"}
    document = {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "c"},
        "status": {"resourceQuotas": [{"namespace": "test", "hard": hard, "used": used}]},
    }
    parsed = documents.parse_documents(documents.load(yaml.dump(document)))
    assert parsed.inventories["c"].quotas == (quota_from(quota(hard, used)).bounds,)


def test_a_snapshot_has_the_quotas_as_they_are_watched() -> None:
    inventory = ClusterInventory("c", epoch=1)
    registration = ClusterRegistration(ClusterSpec("c"), ClusterAccess())
    watcher = ClusterWatcher(registration, inventory, InventorySettings(), lambda *_: None)

    def published() -> dict[str, int]:
        assert inventory.changed
        return {q.namespace: dict(q.hard).get("cpu", 0) for q in inventory.publish(1.0).closing.quotas}

    some = [quota_from(quota({"cpu": "2"}, namespace=n)) for n in ("b", "a")]
    watcher._take_quotas(Replaced([*some, quota_from(quota({"limits.cpu": "1"}, namespace="c"))], "1"))
    assert published() == {"a": 2000, "b": 2000}
    watcher._take_quotas(Changed(some[0]))
    assert not inventory.changed, "nothing new"
    watcher._take_quotas(Changed(quota_from(quota({"cpu": "3"}, namespace="b"))))
    assert published() == {"a": 2000, "b": 3000}
    watcher._take_quotas(Removed(some[1]))
    assert published() == {"b": 3000}


@pytest.mark.parametrize("allowed", [True, False])
async def test_an_account_that_may_not_read_quotas_does_without(allowed: bool) -> None:
    inventory = ClusterInventory("c", epoch=1)
    registration = ClusterRegistration(ClusterSpec("c"), ClusterAccess())
    watcher = ClusterWatcher(registration, inventory, InventorySettings(request_timeout=0.05), lambda *_: None)
    read, refused = asyncio.Event(), asyncio.Event()
    reflectors = [SimpleNamespace(synced=event, last_error=None) for event in (read, refused)]
    watcher.reflectors = reflectors  # type: ignore[assignment]
    announcing = asyncio.create_task(watcher._announce_whole())
    await asyncio.sleep(0)
    assert not inventory.whole, "nodes and pods have to be read"
    read.set()
    if allowed:
        refused.set()
    await announcing
    assert inventory.whole


# --- In simulated clusters --------------------------------------------------------------------------------------------


def simulated(**rest: Any) -> SimulatedCluster:
    """A cluster with one node of 8 GPUs whose quota of 6 is used for 1 by something else than pods."""
    bounds = NamespaceQuota("test", (GPU, "pods"), resources({GPU: 6, "pods": 9}), resources({GPU: 1}))
    allocatable = resources({"cpu": 8000, GPU: 8, "pods": 10})
    node = NodeClass("gpu", allocatable, 1, free=(FreeBlock(1, allocatable),))
    return build_cluster(ClusterSpec("c"), Inventory("c", node_classes=(node,), quotas=(bounds,), **rest), now=0.0)


def pod(name: str, gpus: int, namespace: str = "test") -> dict[str, Any]:
    container = {"name": "c", "image": "i", "resources": {"limits": {GPU: str(gpus)}}}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def used(cluster: SimulatedCluster) -> list[dict[str, int]]:
    cluster.drive.settle(10.0)
    found = (quota_from(q).bounds for q in cluster.drive.view.list("v1", "ResourceQuota"))
    return [dict(q.used) for q in found if q is not None]


def test_the_quota_of_a_document_is_an_object_that_counts_pods() -> None:
    cluster = simulated()
    assert used(cluster) == [{GPU: 1}]
    cluster.drive.apply([Create(pod("a", 2)), Create(pod("b", 9)), Create(pod("c", 1, "default"))], 1.0)
    assert used(cluster) == [{GPU: 12, "pods": 2}], "pods that wait for a node count too, those of other namespaces not"
    ended = {"status": {"phase": "Succeeded"}}
    cluster.drive.apply([Patch(Ref("v1", "Pod", "test", "a"), ended, "status")], 2.0)
    cluster.drive.apply([Delete(Ref("v1", "Pod", "test", "b"), grace_seconds=0)], 2.0)
    assert used(cluster) == [{GPU: 1}]


def test_a_quota_that_somebody_makes_is_counted_too() -> None:
    cluster = simulated(namespaces=frozenset({"test"}))
    made = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "own", "namespace": "test"}}
    spec = {"hard": {"requests.cpu": "4", "limits.cpu": "9"}}
    cluster.drive.apply([Create({**made, "spec": spec}), Create(pod("a", 2))], 1.0)
    assert sorted(map(sorted, used(cluster))) == [[], [GPU, "pods"]]
    own = cluster.drive.view.get("v1", "ResourceQuota", "test", "own")
    assert own is not None and own["status"] == {"hard": spec["hard"], "used": {"requests.cpu": "0", "limits.cpu": "0"}}
    broken = {"metadata": {"annotations": {USED_BESIDES: "[1]"}}}
    cluster.drive.apply([Patch(Ref("v1", "ResourceQuota", "test", "own"), broken)], 2.0)
    assert sorted(map(sorted, used(cluster))) == [[], [GPU, "pods"]]


def test_a_namespace_that_is_not_there_has_no_quota() -> None:
    assert used(simulated(namespaces=frozenset({"other"}))) == []
