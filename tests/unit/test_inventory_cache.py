"""Inventory's cache: free blocks and the pods of each workload, kept from node and pod changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpufleet.model import names
from gpufleet.model.cluster import ElasticStock, FreeBlock, ModelStock
from services.inventory.core.cache import ClusterCache
from services.inventory.core.objects import node_from, pod_from, pools_from, provisioning_from

GPU = "nvidia.com/gpu"
ALLOCATABLE = {"cpu": "8", "memory": "64Gi", "pods": "10", GPU: "8"}
WORKLOAD = "test/Deployment/llm"


def node(name: str = "n1", *, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    marks = {"kubernetes.io/hostname": name, "gpufleet.io/node-class": "a100", **(labels or {})}
    return {
        "metadata": {"name": name, "labels": marks},
        "spec": spec,
        "status": {"allocatable": ALLOCATABLE, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def pod(name: str, *, on: str = "", gpus: int = 1, phase: str = "Pending", **more: Any) -> dict[str, Any]:
    conditions = more.pop("conditions", [])
    return {
        "metadata": {
            "name": name,
            "namespace": "test",
            "uid": name,
            "creationTimestamp": more.pop("created", "2026-01-01T00:00:00Z"),
            "labels": {names.COMPONENT_LABEL: "main", "pod-template-hash": more.pop("revision", "r1")},
            "annotations": {names.WORKLOAD_ANNOTATION: more.pop("workload", WORKLOAD)},
            **more.pop("meta", {}),
        },
        "spec": {
            "nodeName": on,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "8Gi", GPU: str(gpus)}}}],
        },
        "status": {"phase": phase, "conditions": conditions, **more},
    }


def unschedulable(since: str = "2026-01-01T00:00:10Z") -> list[dict[str, str]]:
    return [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "lastTransitionTime": since,
            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        }
    ]


def cache_with(*manifests: dict[str, Any]) -> ClusterCache:
    cache = ClusterCache()
    for manifest in manifests:
        if "containers" in manifest["spec"]:
            cache.put_pod(pod_from(manifest))
        else:
            cache.put_node(node_from(manifest))
    return cache


def free(cache: ClusterCache, name: str = "a100") -> list[tuple[int, int]]:
    """(nodes, GPUs free) per block."""
    found = cache.node_class(name)
    assert found is not None
    return [(b.nodes, dict(b.free).get(GPU, 0)) for b in found.free]


def numbers(cache: ClusterCache, name: str = "a100") -> list[tuple[int, ...]]:
    """Numbers of the nodes with pods of workloads, per block."""
    found = cache.node_class(name)
    assert found is not None
    return [b.numbers for b in found.free]


def where(cache: ClusterCache, workload: str = WORKLOAD) -> list[tuple[str, int, int, str]]:
    """(class, node, pods, unit) in the order in which pods go."""
    ((_, found),) = cache.pods_of(workload, 0.0)
    return [(n.node_class, n.number, n.pods, n.unit) for n in found.nodes]


def test_nodes_alike_are_one_class_and_blocks_count_equal_nodes() -> None:
    cache = cache_with(node("n1"), node("n2"), node("n3"), pod("p", on="n2", gpus=2, phase="Running"))
    found = cache.node_class("a100")
    assert found is not None and found.nodes == 3
    assert sorted(free(cache)) == [(1, 6), (2, 8)]
    full = dict(found.free[0].free)
    assert full["cpu"] == 8000 and full["memory"] == 64 * 2**30 and full["pods"] == 10


def test_a_pod_that_ends_or_goes_gives_its_room_back() -> None:
    cache = cache_with(node(), pod("a", on="n1", gpus=8, phase="Running"), pod("b", on="n1", gpus=0, phase="Running"))
    assert free(cache) == [(1, 0)]
    cache.put_pod(pod_from(pod("a", on="n1", gpus=8, phase="Succeeded")))
    assert free(cache) == [(1, 8)]
    cache.remove_pod("b")
    assert dict(cache.node_class("a100").free[0].free)["pods"] == 10  # type: ignore[union-attr]


def test_a_terminating_pod_holds_room_but_is_not_counted_for_its_workload() -> None:
    going = pod("a", on="n1", gpus=3, phase="Running", meta={"deletionTimestamp": "2026-01-01T00:01:00Z"})
    cache = cache_with(node(), going)
    assert free(cache) == [(1, 5)]
    assert cache.pods_of(WORKLOAD, 0.0)[0][1].bound == 0


@pytest.mark.parametrize(
    "change",
    [
        {"unschedulable": True},
        {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]},
    ],
)
def test_a_cordoned_or_unreachable_node_stays_in_its_class_and_is_full(change: dict[str, Any]) -> None:
    cache = cache_with(node("n1"), node("n2"))
    cache.put_node(node_from(node("n2", **change)))
    found = cache.node_class("a100")
    assert found is not None and found.nodes == 2
    assert free(cache) == [(1, 8)]


def test_a_node_that_is_full_of_pods_is_in_no_block_unless_some_are_ours() -> None:
    pods = [pod(f"p{i}", on="n1", gpus=0, phase="Running", workload="") for i in range(10)]
    cache = cache_with(node(), *pods)
    assert free(cache) == []
    cache.put_pod(pod_from(pod("p9", on="n1", gpus=0, phase="Running")))
    assert free(cache) == [(1, 8)]
    assert numbers(cache) == [(1,)]
    assert dict(cache.node_class("a100").free[0].free).get("pods", 0) == 0  # type: ignore[union-attr]


def test_other_taints_or_shapes_are_other_classes() -> None:
    taint = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
    cache = cache_with(node("n1"), node("n2", taints=[taint]))
    assert len(cache.class_names()) == 2
    other = next(name for name in cache.class_names() if name != "a100")
    assert other.startswith("a100-")
    assert cache.node_class(other).taints[0].key == "dedicated"  # type: ignore[union-attr]


def test_pods_seen_before_their_node_count_when_it_comes() -> None:
    cache = cache_with(pod("a", on="n1", gpus=2, phase="Running"), node())
    assert free(cache) == [(1, 6)]
    cache.remove_node("n1")
    assert cache.class_names() == []
    cache.put_node(node_from(node()))
    assert free(cache) == [(1, 6)]


def test_workload_pods_by_what_they_do() -> None:
    ready = [{"type": "Ready", "status": "True"}]
    cache = cache_with(
        node(),
        pod("a", on="n1", phase="Running", conditions=ready),
        pod("b", on="n1", phase="Running"),
        pod("c", phase="Succeeded", on="n1"),
        pod("d", phase="Failed", on="n1"),
        pod("e", phase="Failed", on="n1", reason="Evicted"),
        pod("f", conditions=unschedulable()),
    )
    [(component, pods)] = cache.pods_of(WORKLOAD, 1767225700.0)
    assert component == "main"
    assert (pods.bound, pods.ready, pods.finished, pods.failed, pods.evicted) == (2, 1, 1, 1, 1)
    assert pods.unschedulable == (1767225610.0,)
    assert "Insufficient" in pods.message


def test_a_pod_that_waits_for_its_image_is_not_unschedulable() -> None:
    cache = cache_with(node(), pod("a", on="n1", conditions=[{"type": "PodScheduled", "status": "True"}]))
    [(_, pods)] = cache.pods_of(WORKLOAD, 0.0)
    assert pods.unschedulable == () and pods.bound == 1


def test_only_the_newest_revision_counts_as_unschedulable() -> None:
    cache = cache_with(
        pod("old", conditions=unschedulable(), revision="r1"),
        pod("new", conditions=unschedulable(), revision="r2", created="2026-01-01T00:05:00Z"),
    )
    assert len(cache.pods_of(WORKLOAD, 0.0)[0][1].unschedulable) == 1


def event(reason: str, message: str, at: str = "2026-01-01T00:00:20Z") -> dict[str, Any]:
    about = {"kind": "Pod", "uid": "f", "name": "f", "namespace": "test"}
    return {"reason": reason, "message": message, "lastTimestamp": at, "involvedObject": about}


def test_a_pod_that_waits_for_a_node_is_not_unschedulable_until_the_claim_is_too_old() -> None:
    cache = cache_with(node(), pod("f", conditions=unschedulable()))
    claim = provisioning_from(event("ProvisionNode", "Provision node x in Zone: z with InstanceType: t"))
    assert claim is not None
    cache.put_provisioning(claim)
    start = claim.at
    [(_, pods)] = cache.pods_of(WORKLOAD, start + 899)
    assert (pods.unschedulable, pods.provisioning, pods.provisioning_since) == ((), 1, start)
    assert cache.next_expiry(start) == start + 900
    [(_, late)] = cache.pods_of(WORKLOAD, start + 900)
    assert len(late.unschedulable) == 1 and late.provisioning == 0


def test_a_node_that_did_not_come_in_time_is_told_of_until_another_is_on_its_way() -> None:
    cache = cache_with(node(), pod("f", conditions=unschedulable()))
    claim = provisioning_from(event("ProvisionNode", "…"))
    later = provisioning_from(event("ProvisionNode", "…", "2026-01-01T00:20:00Z"))
    assert claim is not None and later is not None
    cache.put_provisioning(claim)
    cache.take_changes()
    cache.expire_claims(claim.at + 900)
    assert cache.take_changes()[1] == {WORKLOAD}
    assert cache.pods_of(WORKLOAD, claim.at + 900)[0][1].timed_out == 1
    assert cache.next_expiry(0.0) is None
    cache.put_provisioning(claim)  # the watch began anew
    cache.expire_claims(claim.at + 901)
    assert not cache.has_changes
    cache.put_provisioning(later)
    [(_, pods)] = cache.pods_of(WORKLOAD, later.at + 1)
    assert (pods.timed_out, pods.provisioning) == (0, 1)
    cache.put_pod(pod_from(pod("f", on="n1")))
    cache.expire_claims(later.at + 900)
    assert cache.pods_of(WORKLOAD, later.at + 900)[0][1].timed_out == 0


def test_no_stock_ends_a_claim_and_an_older_event_does_not_bring_it_back() -> None:
    cache = cache_with(node(), pod("f", conditions=unschedulable()))
    for manifest in (
        event("ProvisionNode", "…", "2026-01-01T00:00:20Z"),
        event("NotTriggerScaleUp", "NodePool NoStock", "2026-01-01T00:00:30Z"),
        event("ProvisionNode", "…", "2026-01-01T00:00:20Z"),
    ):
        claim = provisioning_from(manifest)
        assert claim is not None
        cache.put_provisioning(claim)
    [(_, pods)] = cache.pods_of(WORKLOAD, 1767225640.0)
    assert pods.no_stock and pods.provisioning == 0 and len(pods.unschedulable) == 1


@pytest.mark.parametrize(
    "manifest",
    [event("Scheduled", "x"), event("NotTriggerScaleUp", "pool is at its maximum"), {"reason": "ProvisionNode"}],
)
def test_other_events_say_nothing(manifest: dict[str, Any]) -> None:
    assert provisioning_from(manifest) is None


def configmap(**pools: dict[str, Any]) -> dict[str, Any]:
    return {"data": {name.replace("_", "-"): json.dumps(pool) for name, pool in pools.items()}}


def test_a_pool_without_nodes_is_a_class_of_zero_nodes_and_joins_its_nodes_later() -> None:
    shape = {"labels": {"gpufleet.io/node-class": "a100"}, "allocatable": ALLOCATABLE, "maxNodes": 10, "stock": 5}
    cache = ClusterCache()
    cache.replace_pools(pools_from(configmap(a100=shape)))
    found = cache.node_class("a100")
    assert found is not None and found.nodes == 0 and found.elastic == ElasticStock(10, 5, 180.0)
    cache.put_node(node_from(node()))
    assert cache.class_names() == ["a100"]
    assert cache.node_class("a100").nodes == 1  # type: ignore[union-attr]
    cache.remove_node("n1")
    cache.replace_pools(())
    assert cache.class_names() == []


def test_a_broken_pool_is_left_out_and_the_others_count() -> None:
    good = {"allocatable": ALLOCATABLE, "maxNodes": 1, "stock": 1}
    pools = pools_from(configmap(good=good, no_shape={"maxNodes": 1, "stock": 1}, text={"maxNodes": "x"}))
    assert [p.name for p in pools] == ["good"]
    assert pools_from({"data": {"x": "{"}}) == ()


def test_virtual_nodes_are_no_class_and_tell_their_stock() -> None:
    manifest = node("vk", labels={"type": "virtual-kubelet", "topology.kubernetes.io/region": "cn-a"})
    manifest["metadata"]["annotations"] = {
        "gpufleet.io/serverless-stock": json.dumps([{"gpuModelSeries": "T4", "gpus": 8}])
    }
    cache = cache_with(manifest)
    assert cache.class_names() == []
    [virtual] = cache.virtual_nodes()
    assert virtual.stock == (ModelStock("T4", 8),)
    del manifest["metadata"]["annotations"]
    assert cache_with(manifest).virtual_nodes()[0].stock is None
    manifest["metadata"]["annotations"] = {"gpufleet.io/serverless-stock": "what?"}
    assert cache_with(manifest).virtual_nodes()[0].stock == ()


def requests(spec: dict[str, Any]) -> dict[str, int]:
    return dict(pod_from({"metadata": {"name": "p"}, "spec": spec}).requests)


def test_requests_of_init_containers_sidecars_and_overhead() -> None:
    spec = {
        "containers": [{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"limits": {"cpu": "500m"}}}],
        "initContainers": [
            {"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
            {"resources": {"requests": {"cpu": "3"}}},
        ],
        "overhead": {"cpu": "100m"},
    }
    assert requests(spec) == {"cpu": 4100, "pods": 1}


def test_what_a_pod_asks_for_as_a_whole_takes_the_place_of_its_containers() -> None:
    spec = {
        "containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
        "resources": {"requests": {"cpu": "3"}},
        "overhead": {"cpu": "100m"},
    }
    assert requests(spec) == {"cpu": 3100, "memory": 2**30, "pods": 1}


def test_an_unreadable_quantity_does_not_hide_the_others() -> None:
    manifest = node()
    manifest["status"]["allocatable"] = {"cpu": "8Gx", GPU: "8"}
    assert dict(node_from(manifest).allocatable) == {GPU: 8}


def test_a_list_replaces_what_was_known() -> None:
    cache = cache_with(node("n1"), node("n2"), pod("a", on="n1", phase="Running"))
    cache.take_changes()
    cache.replace_nodes([node_from(node("n2"))])
    cache.replace_pods([])
    assert free(cache) == [(1, 8)]
    assert cache.workload_keys() == []
    assert cache.take_changes() == ({"a100"}, {WORKLOAD})
    assert isinstance(cache.node_class("a100").free[0], FreeBlock)  # type: ignore[union-attr]


def test_what_did_not_change_is_not_published_again() -> None:
    cache = cache_with(node(), pod("a", on="n1", phase="Running"))
    cache.take_changes()
    cache.put_node(node_from(node()))
    cache.put_pod(pod_from(pod("a", on="n1", phase="Running")))
    assert not cache.has_changes


# Where the pods of workloads are.


def on(name: str, where: str, **more: Any) -> dict[str, Any]:
    return pod(name, on=where, phase="Running", conditions=[{"type": "Ready", "status": "True"}], **more)


def test_blocks_and_pods_call_a_node_by_the_same_number() -> None:
    cache = cache_with(node("n1"), node("n2"), node("n3"), on("a", "n2"), on("b", "n3", workload="test/Deployment/x"))
    cache.put_pod(pod_from(on("c", "n1", workload="")))
    assert list(zip(free(cache), numbers(cache), strict=True)) == [((3, 7), (2, 3))]
    assert where(cache) == [("a100", 2, 1, "")]
    cache.remove_pod("a")
    assert list(zip(free(cache), numbers(cache), strict=True)) == [((1, 8), ()), ((2, 7), (3,))]
    # A node that comes back is another one.
    cache.remove_node("n3")
    assert where(cache, "test/Deployment/x") == []
    cache.put_node(node_from(node("n3")))
    assert where(cache, "test/Deployment/x") == [("a100", 4, 1, "")]
    assert numbers(cache) == [(), (4,)]


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param(
            [on("a", "n1"), on("b", "n2"), on("c", "n2")], [(2, 2), (1, 1)], id="first where most are together"
        ),
        pytest.param(
            [on("a", "n1", created="2026-01-01T00:00:01Z"), on("b", "n2")], [(1, 1), (2, 1)], id="then the youngest"
        ),
        pytest.param(
            [on("a", "n1"), on("b", "n2"), on("c", "n2"), on("e", "n2"), pod("d", on="n1", phase="Running")],
            [(1, 1), (2, 3), (1, 1)],
            id="before all others what is not ready",
        ),
        pytest.param(
            [
                on(f"w-{i}", where, meta={"labels": {"statefulset.kubernetes.io/pod-name": f"w-{i}"}})
                for i, where in enumerate(["n2", "n1", "n1", "n2"])
            ],
            [(2, 1), (1, 2), (2, 1)],
            id="of a StatefulSet the last",
        ),
    ],
)
def test_pods_go_in_the_order_of_their_controller(pods: list[dict[str, Any]], expected: list[tuple[int, int]]) -> None:
    cache = cache_with(node("n1"), node("n2"), *pods)
    ((_, found),) = cache.pods_of(WORKLOAD, 0.0)
    assert [(n.number, n.pods) for n in found.nodes] == expected


def test_of_very_many_nodes_only_the_first_are_told() -> None:
    nodes = [node(f"n{i:03}") for i in range(300)]
    cache = cache_with(*nodes, *(on(f"p{i:03}", f"n{i:03}") for i in range(300)))
    found = where(cache)
    assert len(found) == 257
    assert (found[0], found[-1]) == (("a100", 1, 1, ""), ("a100", 0, 44, ""))


def test_pods_are_told_anew_when_their_node_is_of_another_class() -> None:
    cache = cache_with(node("n1"), on("a", "n1"))
    cache.take_changes()
    cache.put_node(node_from(node("n1", unschedulable=True)))
    assert (free(cache), cache.take_changes()) == ([], ({"a100"}, set()))
    cache.put_node(node_from(node("n1", labels={"gpufleet.io/node-class": "h20"})))
    assert cache.take_changes()[1] == {WORKLOAD}
    assert where(cache) == [("h20", 1, 1, "")]


def test_pods_that_are_being_deleted_are_told_apart() -> None:
    cache = cache_with(node("n1"), node("n2"), on("a", "n1"), on("b", "n2"))
    gone = on("c", "n2")
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    cache.put_pod(pod_from(gone))
    ((_, found),) = cache.pods_of(WORKLOAD, 0.0)
    assert [(n.number, n.pods) for n in found.nodes] == [(1, 1), (2, 1)]
    assert [(n.number, n.pods) for n in found.leaving] == [(2, 1)]
    assert found.bound == 2


def test_pods_on_a_virtual_node_are_on_no_node_of_a_class() -> None:
    cache = cache_with(node("v1", labels={"type": "virtual-kubelet"}), on("a", "v1"))
    assert where(cache) == [("v1", 0, 1, "")]
