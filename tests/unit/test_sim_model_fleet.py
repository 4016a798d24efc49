"""Simulated clusters made from Cluster documents."""

from __future__ import annotations

import json
import time

import pytest

from gpufleet.model.cluster import (
    ClusterSpec,
    ElasticStock,
    FreeBlock,
    Inventory,
    ModelStock,
    NodeClass,
    VirtualNode,
)
from gpufleet.model.resources import Resources, parse_resources
from gpufleet.model.selectors import Taint
from services.inventory.core.cache import ClusterCache
from services.inventory.core.objects import node_from, pod_from, pools_from
from sim.fleet import SimulatedCluster, SimulatedFleet, build_cluster
from sim.model.api import Create
from sim.model.names import STOCK
from tests.support.simulation import START, crd, deployment, pod_template

MEM, CORE = "aliyun.com/gpu-mem", "aliyun.com/gpu-core.percentage"
SHAPE = parse_resources({"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": "8"})


def free(**amounts: str) -> Resources:
    named = {name.replace("gpu", "nvidia.com/gpu"): value for name, value in amounts.items()}
    whole = dict(SHAPE)
    return tuple(sorted({**whole, **dict(parse_resources(named))}.items()))


def build(inventory: Inventory, **more: object) -> SimulatedCluster:
    return build_cluster(ClusterSpec("c", zones=("z-1",)), inventory, now=START, **more)  # type: ignore[arg-type]


def observed(cluster: SimulatedCluster) -> ClusterCache:
    """The cluster as inventory sees it."""
    cache = ClusterCache()
    view = cluster.drive.view
    cache.replace_nodes(node_from(entry) for entry in view.list("v1", "Node"))
    cache.replace_pods(pod_from(entry) for entry in view.list("v1", "Pod"))
    cache.replace_pools(pools_from(view.get("v1", "ConfigMap", "kube-system", STOCK)))
    return cache


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ((FreeBlock(3, SHAPE),), {(3, SHAPE)}),
        ((FreeBlock(1, free(cpu="20", gpu="2", pods="100")), FreeBlock(2, SHAPE)), None),
        ((FreeBlock(2, free(gpu="0", pods="108")),), None),
    ],
)
def test_inventory_sees_the_free_blocks_of_the_document(
    blocks: tuple[FreeBlock, ...], expected: set[tuple[int, Resources]] | None
) -> None:
    nodes = sum(block.nodes for block in blocks)
    given = NodeClass("a100", SHAPE, nodes, labels=(("gpu", "a100"),), free=blocks)
    cluster = build(Inventory("c", node_classes=(given,)))
    seen = observed(cluster).node_class("a100")
    assert seen is not None
    wanted = expected or {(b.nodes, tuple(x for x in b.free if x[1])) for b in blocks}
    assert {(b.nodes, b.free) for b in seen.free} == wanted
    assert (seen.nodes, seen.allocatable) == (nodes, SHAPE)


SHARING = parse_resources({"cpu": "64", "memory": "1Ti", "pods": "110", "aliyun.com/gpu-count": "2"})


@pytest.mark.parametrize(
    ("has", "free_of", "devices"),
    [
        ({MEM: "30"}, {MEM: "20"}, (1000, 333)),
        ({MEM: "30"}, {MEM: "10"}, (333, 333)),
        ({MEM: "30", CORE: "200"}, {MEM: "10", CORE: "60"}, (600, 0)),
        ({CORE: "200"}, {CORE: "200"}, (1000, 1000)),
        ({MEM: "48"}, {MEM: "0"}, (0, 0)),
    ],
)
def test_inventory_sees_what_is_free_of_each_device(
    has: dict[str, str], free_of: dict[str, str], devices: tuple[int, ...]
) -> None:
    whole = tuple(sorted((*SHARING, *parse_resources(has))))
    block = FreeBlock(1, tuple(sorted({**dict(whole), **dict(parse_resources(free_of)), "pods": 109}.items())), devices)
    given = NodeClass("shared", whole, 1, free=(block,))
    seen = observed(build(Inventory("c", node_classes=(given,)))).node_class("shared")
    assert seen is not None
    assert [found.gpu_free for found in seen.free] == [devices]


def test_nodes_that_no_block_lists_are_full() -> None:
    given = NodeClass("a100", SHAPE, 3, free=(FreeBlock(1, SHAPE),))
    cluster = build(Inventory("c", node_classes=(given,)))
    template = pod_template(gpu=8)
    cluster.drive.apply([Create(deployment("llm", 3, template))], START)
    cluster.drive.settle(START)
    bound = [p for p in cluster.drive.view.list("v1", "Pod", "default") if p["spec"].get("nodeName")]
    assert [p["spec"]["nodeName"] for p in bound] == ["a100-0"]


def test_elastic_classes_are_node_pools_and_one_class_with_their_nodes() -> None:
    taints = (Taint("gpu", "NoSchedule", "yes"),)
    elastic = ElasticStock(10, 5, 60.0)
    given = NodeClass("a100", SHAPE, 1, (("gpu", "a100"),), taints, (FreeBlock(1, SHAPE),), elastic)
    cluster = build(Inventory("c", node_classes=(given,)))
    template = pod_template(gpu=8, tolerations=[{"key": "gpu", "operator": "Exists"}])
    cluster.drive.apply([Create(deployment("llm", 2, template))], START)
    fleet = SimulatedFleet({"c": cluster})
    fleet.settle(START)
    fleet.run_until(START + 61)
    cache = observed(cluster)
    seen = cache.node_class("a100")
    assert cache.class_names() == ["a100"]
    assert seen is not None
    assert (seen.nodes, seen.elastic) == (2, ElasticStock(9, 4, 60.0))


def test_virtual_nodes_show_their_stock() -> None:
    stock = (ModelStock("T4", 8), ModelStock("A10", 0))
    virtual = VirtualNode("vk", (("type", "virtual-kubelet"),), (), stock)
    cluster = build(Inventory("c", virtual_nodes=(virtual, VirtualNode("open"))))
    seen = {entry.name: entry.stock for entry in observed(cluster).virtual_nodes()}
    assert seen == {"vk": (ModelStock("A10", 0), ModelStock("T4", 8)), "open": None}


def test_namespaces_and_apis() -> None:
    crds = [crd("kubeflow.org", "v1", "PyTorchJob"), crd("argoproj.io", "v1alpha1", "Workflow")]
    inventory = Inventory("c", apis=frozenset({"kubeflow.org/v1/PyTorchJob"}), namespaces=frozenset({"ml"}))
    cluster = build(inventory, crds=crds, namespaces=["test"])
    names = {entry["metadata"]["name"] for entry in cluster.drive.view.list("v1", "Namespace")}
    assert {"default", "kube-system", "ml", "test"} <= names
    assert cluster.store.registry.by_kind("kubeflow.org/v1", "PyTorchJob") is not None
    assert cluster.store.registry.by_kind("argoproj.io/v1alpha1", "Workflow") is None


def test_two_clusters_of_one_document_are_alike_and_seeds_tell_their_lives_apart() -> None:
    given = NodeClass("a100", SHAPE, 2, free=(FreeBlock(2, SHAPE),))
    first, second = (build(Inventory("c", node_classes=(given,))) for _ in range(2))
    other = build(Inventory("c", node_classes=(given,)), seed=1)
    assert _dump(first) == _dump(second)
    assert first.store.incarnation != other.store.incarnation


def _dump(cluster: SimulatedCluster) -> str:
    kinds = (("v1", "Node"), ("v1", "Pod"), ("v1", "ConfigMap"), ("v1", "Namespace"))
    return json.dumps([list(cluster.drive.view.list(*kind)) for kind in kinds], sort_keys=True)


def test_a_hundred_clusters_of_a_hundred_nodes() -> None:
    given = NodeClass("a100", SHAPE, 100, free=(FreeBlock(100, SHAPE),))
    started = time.process_time()
    clusters = {
        f"c-{i}": build_cluster(ClusterSpec(f"c-{i}"), Inventory(f"c-{i}", node_classes=(given,)), now=START)
        for i in range(100)
    }
    built = time.process_time() - started
    fleet = SimulatedFleet(clusters)
    started = time.process_time()
    fleet.settle(START + 1000)
    idle = time.process_time() - started
    assert fleet.next_wake() is None, "nothing happens by itself in an idle fleet"
    assert idle < built / 10
