"""What counts as room (specification 3.2): quotas of namespaces, best-effort pods, ephemeral storage, shared GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpufleet.model.cluster import NamespaceQuota
from gpufleet.model.reasons import Verdict
from gpufleet.model.resources import labels, resources
from gpufleet.model.workload import PodShape
from gpufleet.wire import documents, yaml
from services.scheduler.core.events import InventoryChanged
from services.scheduler.core.fleet import Fleet
from tests.support.scheduling import (
    GPU,
    NODE,
    World,
    amounts,
    deployment,
    gpus_free,
    inventory,
    job,
    node_class,
    policy,
)

LLM = "test/Deployment/llm"
TRAIN = "test/PyTorchJob/train"


def quota(hard: dict[str, int], used: dict[str, int] | None = None, namespace: str = "test") -> NamespaceQuota:
    return NamespaceQuota(namespace, tuple(sorted(hard)), resources(hard), resources(used or {}))


def bounded(*quotas: NamespaceQuota, gpus: int = 8, other: int = 2) -> World:
    """Cluster a has quotas, b has none."""
    world = World()
    world.clusters(a=[gpus_free(gpus)], b=[gpus_free(other)])
    world.feed(InventoryChanged(inventory("a", gpus_free(gpus), at=world.now, n=1, quotas=quotas)))
    return world


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ((quota({GPU: 3}),), {"a": 3, "b": 2}),
        ((quota({GPU: 3}, {GPU: 2}),), {"a": 1, "b": 2}),
        ((quota({GPU: 0}),), {"b": 2}),
        ((quota({GPU: 1}, {GPU: 5}),), {"b": 2}),  # lowered since
        ((quota({"pods": 2}),), {"a": 2, "b": 2}),
        ((quota({GPU: 6}), quota({"pods": 2})), {"a": 2, "b": 2}),  # each one holds
        ((quota({"cpu": 1000}),), {"a": 6, "b": 2}),  # nothing of it is asked for
        ((quota({GPU: 1}, namespace="other"),), {"a": 6, "b": 2}),
        ((), {"a": 6, "b": 2}),
    ],
)
def test_a_resource_quota_of_the_namespace_bounds_a_cluster(
    quotas: tuple[NamespaceQuota, ...], expected: dict[str, int]
) -> None:
    world = bounded(*quotas)
    world.submit(deployment(replicas=8), policy())
    assert world.assigned(LLM) == expected
    if sum(expected.values()) < 8:
        assert world.codes(LLM)["a"] == "NamespaceQuota"


def test_what_is_placed_and_not_created_yet_counts_as_used() -> None:
    world = bounded(quota({GPU: 4}))
    world.submit(deployment("one", 3), policy(["a"]))
    world.submit(deployment("two", 3))
    assert world.assigned("test/Deployment/one") == {"a": 3}
    assert world.assigned("test/Deployment/two") == {"a": 1}
    # The pods are there now, and the quota counts them; then it is raised.
    for key, count in (("one", 3), ("two", 1)):
        world.bind(f"test/Deployment/{key}", "a", main=count)
    raised = quota({GPU: 8}, {GPU: 4})
    world.feed(InventoryChanged(inventory("a", gpus_free(4), at=world.now, n=2, quotas=(raised,))))
    assert world.assigned("test/Deployment/two") == {"a": 3}


def test_a_gang_needs_quota_for_all_of_it() -> None:
    world = bounded(quota({GPU: 3}), other=4)
    world.submit(job(components={"Master": (1, 1), "Worker": (3, 1)}), policy(["a"], ["b"]))
    assert world.assigned(TRAIN) == {"b": 4}
    alone = bounded(quota({GPU: 3}))
    alone.submit(job(components={"Master": (1, 1), "Worker": (3, 1)}), policy(["a"]))
    assert alone.placement(TRAIN).verdict is Verdict.UNSCHEDULABLE
    (reason,) = alone.placement(TRAIN).reasons
    assert (reason.code.value, reason.message) == (
        "NamespaceQuota",
        "needs 4 nvidia.com/gpu, the ResourceQuota of namespace test has 3 left",
    )


def test_quotas_in_a_document() -> None:
    status = {
        "nodeClasses": [],
        "resourceQuotas": [
            {
                "namespace": "test",
                "hard": {
                    "requests.nvidia.com/gpu": "0",
                    "cpu": "4",
                    "limits.cpu": "8",
                    "count/pods": "5",
                    "services": "1",
                },
                "used": {"cpu": "1500m", "services": "1"},
            }
        ],
    }
    document = {"apiVersion": "gpufleet.io/v1alpha1", "kind": "Cluster", "metadata": {"name": "c"}, "status": status}
    parsed = documents.parse_text(yaml.dump([document]))
    (found,) = parsed.inventories["c"].quotas
    assert found == NamespaceQuota(
        "test", ("cpu", "nvidia.com/gpu", "pods"), resources({"cpu": 4000, "pods": 5}), resources({"cpu": 1500})
    )
    again = documents.dump_cluster(parsed.clusters["c"], parsed.inventories["c"])
    assert documents.parse_text(yaml.dump([again])).inventories["c"].quotas == (found,)


@pytest.mark.parametrize(
    ("allocatable", "free", "requests", "placed"),
    [
        # Best effort: what bounds such pods is the number of pods that a node takes.
        ({**NODE, "pods": 3}, [{}, {"pods": 1}], {}, 4),
        ({"cpu": 1000}, [{}], {}, 9),
        # Ephemeral storage is a resource like any other.
        ({**NODE, "ephemeral-storage": 100}, [{}, {"ephemeral-storage": 40}], {"ephemeral-storage": 30}, 4),
        ({**NODE}, [{}], {"ephemeral-storage": 1}, 0),  # a class that has none
        # Shares of GPUs are counted as what they are, not as GPUs.
        (
            {"cpu": 9000, "pods": 9, "aliyun.com/gpu-mem": 32},
            [{}, {"aliyun.com/gpu-mem": 10}],
            {"aliyun.com/gpu-mem": 8},
            5,
        ),
        ({**NODE, "nvidia.com/mig-1g.5gb": 7}, [{"nvidia.com/mig-1g.5gb": 3}], {"nvidia.com/mig-1g.5gb": 1}, 3),
        ({**NODE, "nvidia.com/gpu.shared": 4}, [{GPU: 0}], {"nvidia.com/gpu.shared": 1}, 4),
    ],
)
def test_resources_are_counted_as_what_they_are(
    allocatable: dict[str, int], free: list[dict[str, int]], requests: dict[str, int], placed: int
) -> None:
    world = World()
    world.clusters(a=[node_class("n", allocatable=allocatable, free=free)])
    shape = PodShape(resources({"pods": 1, **requests}))
    world.submit(deployment(replicas=9, shape=shape), policy())
    assert world.assigned(LLM).get("a", 0) == placed


@pytest.mark.parametrize("order", [("Big", "Small"), ("Small", "Big")])
def test_sets_of_several_components_are_packed_largest_first(order: tuple[str, str]) -> None:
    sizes: dict[str, Any] = {"Big": (1, 8), "Small": (4, 2)}
    world = World()
    world.clusters(a=[gpus_free(8, 8)])
    submitted = job(components={name: sizes[name] for name in order})
    world.submit(replace(submitted), policy())
    assert world.placement(TRAIN).verdict is Verdict.SCHEDULED


def test_nodes_that_are_labelled_anew_are_other_room() -> None:
    fleet = Fleet()
    wanted = fleet.catalog.shape(PodShape(resources(amounts(gpu=1)), node_selector=labels({"pool": "a"})))
    room: list[int] = []
    for pools in (["a", "a"], ["a", "b"], ["b"], ["b", "a"]):
        classes = [gpus_free(2, name=f"c{i}", node_labels={"pool": pool}) for i, pool in enumerate(pools)]
        fleet.observed(inventory("c", *classes, n=len(room)))
        room.append(int(fleet.column(wanted).running[0]))
    assert room == [4, 2, 0, 2]
