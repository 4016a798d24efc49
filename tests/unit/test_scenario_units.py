"""What the units of a ResourcePolicy make of a Deployment in a simulated cluster: an object and pods per unit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gpufleet.model.names import UNIT_LABEL
from sim.model.api import Json
from sim.scenario.world import World
from tests.support.plans import LLM, deployment, node_class, policy
from tests.support.scenarios import ended, placed, pods

REGISTERED: Json = {
    "apiVersion": "gpufleet.io/v1alpha1",
    "kind": "Cluster",
    "metadata": {"name": "c1"},
    "status": {
        "nodeClasses": [
            {**node_class(2), "name": "idc", "labels": {"pool": "idc"}},
            {**node_class(2), "name": "ecs", "labels": {"pool": "ecs"}},
        ],
        "virtualNodes": [
            {
                "name": "vk",
                "labels": {"type": "virtual-kubelet"},
                "taints": [{"key": "virtual-kubelet.io/provider", "value": "alibabacloud", "effect": "NoSchedule"}],
                "stock": [{"gpuModelSeries": "T4", "gpus": 8}],
            }
        ],
    },
}


def units(*extra: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "scheduling.alibabacloud.com/v1alpha1",
        "kind": "ResourcePolicy",
        "metadata": {"name": "rp", "namespace": "test"},
        "spec": {
            "selector": {"app": "llm"},
            "units": [
                {"resource": "idc", "nodeSelector": {"pool": "idc"}},
                {"resource": "ecs", "nodeSelector": {"pool": "ecs"}, "max": 1},
                {
                    "resource": "acs",
                    "nodeSelector": {"type": "virtual-kubelet"},
                    "podLabels": {"alibabacloud.com/gpu-model-series": "T4"},
                },
                *extra,
            ],
            **spec,
        },
    }


def objects(world: World) -> dict[str, int]:
    """Replicas of the Deployments in the cluster; the names without the ids of their units."""
    listed = world.members["c1"].shaped.view.list("apps/v1", "Deployment")
    return {d["metadata"]["name"].rpartition("-")[0] or "llm": d["spec"]["replicas"] for d in listed}


def where(world: World) -> dict[str, int]:
    """Pods that run, by the kind of their unit; each is on a node of it."""
    found: Counter[str] = Counter()
    for pod in pods(world, "c1"):
        node = pod["spec"]["nodeName"].partition("-")[0]
        unit = pod["metadata"]["labels"][UNIT_LABEL].partition("-")[0]
        assert (unit, node) in {("idc", "idc"), ("ecs", "ecs"), ("acs", "vk")}
        assert pod["status"]["phase"] == "Running"
        found[unit] += 1
    return dict(found)


BASE = [REGISTERED, policy(), units()]


def test_every_replica_runs_in_its_unit() -> None:
    world = ended([*BASE, deployment(5)], [{"at": "300s", "pods": {"workload": LLM, "cluster": "c1"}}])
    assert where(world) == {"idc": 2, "ecs": 1, "acs": 2}
    assert objects(world) == {"llm": 2, "llm-ecs": 1, "llm-acs": 2}
    assert placed(world).placed == 5


@pytest.mark.parametrize(
    ("replicas", "runs", "left"),
    [
        (4, {"idc": 2, "ecs": 1, "acs": 1}, {"llm": 2, "llm-ecs": 1, "llm-acs": 1}),
        (3, {"idc": 2, "ecs": 1}, {"llm": 2, "llm-ecs": 1}),
        (1, {"idc": 1}, {"llm": 1}),
        (0, {}, {}),
    ],
)
def test_scaling_in_empties_the_last_unit_first(replicas: int, runs: dict[str, int], left: dict[str, int]) -> None:
    world = ended(
        [*BASE, deployment(5)],
        [
            {"at": "60s", "scale": {"workload": LLM, "replicas": replicas}},
            {"at": "300s", "pods": {"workload": LLM, "cluster": "c1"}},
        ]
        if replicas
        else [{"at": "60s", "scale": {"workload": LLM, "replicas": 0}}, {"at": "300s", "expect": {}}],
    )
    assert where(world) == runs
    assert objects(world) == left


def test_deleting_the_workload_removes_every_object() -> None:
    world = ended([*BASE, deployment(5)], [{"at": "60s", "delete": LLM}, {"at": "300s", "expect": {}}])
    assert objects(world) == {}
    assert pods(world, "c1") == []
    assert not world.placements()


def test_what_an_edit_takes_out_of_the_policy_goes_on_running() -> None:
    edited = units()
    edited["spec"]["units"] = edited["spec"]["units"][2:]
    world = ended(
        [*BASE, deployment(3)],
        [
            {"at": "60s", "apply": [edited]},
            {"at": "120s", "scale": {"workload": LLM, "replicas": 4}},
            {"at": "300s", "pods": {"workload": LLM, "cluster": "c1"}},
        ],
    )
    assert where(world) == {"idc": 2, "ecs": 1, "acs": 1}
    assert len({pod["metadata"]["creationTimestamp"] for pod in pods(world, "c1")}) == 2
