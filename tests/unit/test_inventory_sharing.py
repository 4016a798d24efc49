"""Shared GPUs of members: which devices pods lie on, what is left of each, and what the scheduler makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpufleet.model.devices import Devices
from gpufleet.model.resources import resources
from gpufleet.model.workload import PodShape
from services.inventory.core.cache import ClusterCache
from services.inventory.core.objects import node_from, pod_from, pools_from
from services.inventory.core.sharing import allocation_from, devices_of
from tests.support.scheduling import World, deployment, policy

MEM, CORE = "aliyun.com/gpu-mem", "aliyun.com/gpu-core.percentage"
BY_CONTAINER = "scheduler.framework.gpushare.allocation"
CORES = "gpushare.alibabacloud.com/core-percentage"


def node(name: str = "n1", labels: dict[str, str] | None = None, has: dict[str, str] | None = None) -> dict[str, Any]:
    """Two devices of 15 GiB each, unless told otherwise."""
    whole = has or {"aliyun.com/gpu-count": "2", MEM: "30", CORE: "200"}
    marks = {"gpufleet.io/node-class": "shared", **(labels or {})}
    return {
        "metadata": {"name": name, "labels": marks},
        "status": {"allocatable": {"cpu": "64", "memory": "512Gi", "pods": "110", **whole}},
    }


def pod(
    name: str, annotations: dict[str, str] | None = None, asks: dict[str, str] | None = None, on: str = "n1"
) -> dict[str, Any]:
    amounts = asks or {MEM: "5"}
    return {
        "metadata": {"uid": name, "name": name, "namespace": "test", "annotations": annotations or {}},
        "spec": {"nodeName": on, "containers": [{"name": "main", "resources": {"limits": amounts}}]},
        "status": {"phase": "Running"},
    }


def on(device: int, amount: int = 5) -> dict[str, str]:
    return {BY_CONTAINER: json.dumps({"0": {str(device): amount}})}


def gpu_free(*manifests: dict[str, Any]) -> list[tuple[int, tuple[int, ...]]]:
    """Nodes and thousandths free per device, by free block."""
    found = cache_with(*manifests).node_class("shared")
    assert found is not None
    return [(block.nodes, block.gpu_free) for block in found.free]


def cache_with(*manifests: dict[str, Any]) -> ClusterCache:
    cache = ClusterCache()
    for manifest in manifests:
        if "status" in manifest and "allocatable" in manifest["status"]:
            cache.put_node(node_from(manifest))
        else:
            cache.put_pod(pod_from(manifest))
    return cache


@pytest.mark.parametrize(
    "annotations, expected",
    [
        ({}, ()),
        (on(1), ((1, MEM, 5),)),
        ({BY_CONTAINER: '{"0":{"1":1},"1":{"1":7}}'}, ((1, MEM, 8),)),
        ({BY_CONTAINER: '{"0":{"0":4,"1":4}}'}, ((0, MEM, 4), (1, MEM, 4))),
        ({BY_CONTAINER: '{"0":{"1":3}}', CORES: '{"0":{"1":50}}'}, ((1, CORE, 50), (1, MEM, 3))),
        ({"ALIYUN_COM_GPU_MEM_IDX": "1", "ALIYUN_COM_GPU_MEM_POD": "8"}, ((1, MEM, 8),)),
        ({"ALIYUN_COM_GPU_MEM_IDX": "1"}, ()),
        ({"ALIYUN_COM_GPU_MEM_IDX": "-"}, ()),
        ({BY_CONTAINER: "[1]"}, ()),
        ({BY_CONTAINER: '{"0": {"gpu": 1}}'}, ()),
        ({BY_CONTAINER: "{"}, ()),
    ],
)
def test_annotations_say_on_which_devices_a_pod_lies(annotations: dict[str, str], expected: object) -> None:
    assert allocation_from(annotations) == expected


@pytest.mark.parametrize(
    "manifest, expected",
    [
        (node(), Devices(2, ((CORE, 200), (MEM, 30)))),
        (node(labels={"aliyun.accelerator/nvidia_count": "4"}, has={MEM: "60"}), Devices(4, ((MEM, 60),))),
        (node(has={MEM: "60"}), None),
        (node(has={"nvidia.com/gpu": "8"}), None),
        (node(labels={"aliyun.accelerator/nvidia_count": "many"}, has={MEM: "60"}), None),
    ],
)
def test_a_node_that_says_how_many_devices_it_shares_has_them(manifest: dict[str, Any], expected: object) -> None:
    assert devices_of(node_from(manifest)) == expected


@pytest.mark.parametrize(
    "pods, expected",
    [
        ([], (1000, 1000)),
        ([pod("a", annotations=on(1))], (1000, 666)),
        ([pod("a", annotations=on(1)), pod("b", annotations=on(1))], (1000, 333)),
        ([pod("a", annotations=on(1)), pod("b", annotations=on(0))], (666, 666)),
        ([pod("a", annotations={**on(0), CORES: '{"0":{"0":80}}'})], (1000, 200)),
        # Where the GPU scheduler would put it: beside the other one.
        ([pod("a", annotations=on(1)), pod("b")], (1000, 333)),
        ([pod("a", annotations=on(1)), pod("b", asks={MEM: "12"})], (666, 200)),
        ([pod("a", annotations=on(7))], (1000, 666)),
        ([pod("a", annotations=on(1, 40))], (1000, 0)),
        ([pod(name, asks={MEM: "12"}) for name in "abc"], (200, 0)),
        ([pod("a", on="n2", annotations=on(1))], (1000, 1000)),
        ([pod("a", asks={"cpu": "4"})], (1000, 1000)),
    ],
)
def test_what_is_left_of_each_device(pods: list[dict[str, Any]], expected: tuple[int, ...]) -> None:
    assert gpu_free(node(), *pods) == [(1, expected)]
    assert gpu_free(*pods, node()) == [(1, expected)], "in whatever order they are seen"


def test_nodes_with_other_devices_free_are_other_blocks() -> None:
    pods = [pod("a", annotations=on(0)), pod("b", annotations=on(0)), pod("c", on="n2", annotations=on(0))]
    spread = pod("d", on="n2", annotations=on(1))
    assert gpu_free(node(), node("n2"), *pods, spread) == [(1, (1000, 333)), (1, (666, 666))]


def test_a_device_that_becomes_known_later_counts_from_then_on_and_a_pod_that_ends_no_more() -> None:
    cache = cache_with(node(), pod("a", annotations=on(0)), pod("b"))
    cache.take_changes()
    cache.put_pod(pod_from(pod("b", annotations=on(1))))
    assert cache.take_changes()[0] == {"shared"}

    def free() -> tuple[int, ...]:
        found = cache.node_class("shared")
        assert found is not None
        return found.free[0].gpu_free

    assert free() == (666, 666)
    cache.remove_pod("a")
    assert free() == (1000, 666)
    cache.put_pod(pod_from({**pod("b", annotations=on(1)), "status": {"phase": "Succeeded"}}))
    assert free() == (1000, 1000)


@pytest.mark.parametrize("memory, placed", [(15, 1), (11, 1), (10, 2), (7, 3), (5, 5), (16, 0)])
def test_the_scheduler_places_on_devices_and_not_on_their_sum(memory: int, placed: int) -> None:
    """5 of 15 are taken on one of two devices, so that 25 are free."""
    found = cache_with(node(), pod("a", annotations=on(0))).node_class("shared")
    assert found is not None
    world = World()
    world.clusters(a=found)
    shape = PodShape(resources({"pods": 1, MEM: memory}))
    world.submit(deployment("w", 9, shape=shape), policy())
    assert world.placement("test/Deployment/w").placed == placed


def test_a_pool_at_zero_nodes_has_the_devices_that_its_nodes_will_have() -> None:
    shape = {"aliyun.com/gpu-count": "2", MEM: "30", "cpu": "64", "pods": "110"}
    pool = {"labels": {"gpufleet.io/node-class": "shared"}, "allocatable": shape, "maxNodes": 1, "stock": 1}
    cache = ClusterCache()
    cache.replace_pools(pools_from({"data": {"shared": json.dumps(pool)}}))
    found = cache.node_class("shared")
    assert found is not None and found.free == ()
    for memory, placed in ((10, 2), (7, 4), (15, 2), (31, 0)):
        world = World()
        world.clusters(a=found)
        rest = PodShape(resources({"pods": 1, MEM: memory}))
        world.submit(deployment("w", 9, shape=rest), policy(ecs_provision=True))
        assert world.placement("test/Deployment/w").placed == placed
