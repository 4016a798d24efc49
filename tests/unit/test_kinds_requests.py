"""What one pod needs, as the kubelet would reserve it (specification 11.2)."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.model import kinds
from gpufleet.model.kinds.spark import memory
from gpufleet.model.quantity import QuantityError
from gpufleet.model.selectors import NodeSelectorTerm, Requirement, Toleration

MIB = 2**20
GIB = 2**30


def pod(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


def container(
    requests: dict[str, Any] | None = None, limits: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    resources = {"requests": requests, "limits": limits}
    return {"name": "c", "resources": {name: value for name, value in resources.items() if value is not None}, **more}


def requests_of(spec: dict[str, Any]) -> dict[str, int]:
    return dict(kinds.interpret(pod(spec)).components[0].shape.requests)


ALWAYS: dict[str, Any] = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"containers": [{"name": "c"}]}, {}, id="nothing asked"),
        pytest.param(
            {"containers": [container({"cpu": "500m", "memory": "1Gi"}), container({"cpu": 1})]},
            {"cpu": 1500, "memory": GIB},
            id="sum of containers",
        ),
        pytest.param(
            {"containers": [container({"cpu": 1}, {"cpu": 2, "memory": "1Gi", "nvidia.com/gpu": "1"})]},
            {"cpu": 1000, "memory": GIB, "nvidia.com/gpu": 1},
            id="a request falls back to its limit",
        ),
        pytest.param(
            {"containers": [container({"cpu": 1})], "initContainers": [container({"cpu": 4}), container({"cpu": 2})]},
            {"cpu": 4000},
            id="the largest init container",
        ),
        pytest.param(
            {
                "containers": [container({"cpu": 3})],
                "initContainers": [container({"cpu": 2}), container({"memory": 1})],
            },
            {"cpu": 3000, "memory": 1},
            id="per resource",
        ),
        pytest.param(
            {"containers": [container({"cpu": 1})], "initContainers": [container({"cpu": 2}, **ALWAYS)]},
            {"cpu": 3000},
            id="a sidecar runs beside the containers",
        ),
        pytest.param(
            {
                "containers": [container({"cpu": 1})],
                "initContainers": [
                    container({"cpu": 2}, **ALWAYS),
                    container({"cpu": 5}),
                    container({"cpu": 1}, **ALWAYS),
                ],
            },
            {"cpu": 7000},
            id="an init container runs beside the sidecars before it only",
        ),
        pytest.param(
            {"containers": [container({"cpu": 1})], "overhead": {"cpu": "250m", "memory": "120Mi"}},
            {"cpu": 1250, "memory": 120 * MIB},
            id="overhead",
        ),
        pytest.param(
            {"containers": [container({"cpu": 1, "memory": 5})], "resources": {"requests": {"cpu": 4}}},
            {"cpu": 4000, "memory": 5},
            id="requests of the pod itself",
        ),
    ],
)
def test_requests_of_a_pod(spec: dict[str, Any], expected: dict[str, int]) -> None:
    assert requests_of(spec) == {**expected, "pods": 1}


def test_node_constraints_travel_with_the_component() -> None:
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["a100", "h100"]}]},
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},
                ]
            }
        }
    }
    component = kinds.interpret(
        pod(
            {
                "containers": [{"name": "c"}],
                "nodeSelector": {"zone": "b", "disk": "ssd"},
                "affinity": affinity,
                "tolerations": [{"operator": "Exists"}, {"key": "k", "value": "v", "effect": "NoSchedule"}],
                "schedulerName": "ack-co-scheduler",
                "priorityClassName": "high",
                "priority": 7,
            }
        )
    ).components[0]
    assert component.shape.node_selector == (("disk", "ssd"), ("zone", "b"))
    assert component.shape.affinity == (
        NodeSelectorTerm((Requirement("gpu", "In", ("a100", "h100")),)),
        NodeSelectorTerm((), (Requirement("metadata.name", "In", ("n1",)),)),
    )
    assert component.shape.tolerations == (Toleration(operator="Exists"), Toleration("k", "Equal", "v", "NoSchedule"))
    assert (component.scheduler_name, component.priority_class, component.priority) == ("ack-co-scheduler", "high", 7)


def spark(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "sparkoperator.k8s.io/v1beta2",
        "kind": "SparkApplication",
        "metadata": {"name": "s", "namespace": "n"},
        "spec": spec,
    }


@pytest.mark.parametrize(
    ("spec", "driver", "executor"),
    [
        pytest.param({"type": "Java"}, (1000, 1408), (1000, 1408), id="defaults: 1g Java is 1408 MiB"),
        pytest.param({"type": "Python"}, (1000, 1433), (1000, 1433), id="other languages take 40 percent"),
        pytest.param(
            {
                "type": "Scala",
                "driver": {"memory": "512m", "cores": 2},
                "executor": {"memory": "8g", "coreRequest": "300m"},
            },
            (2000, 896),
            (300, 9011),
            id="factor above the minimum; coreRequest wins",
        ),
        pytest.param(
            {"type": "Scala", "memoryOverheadFactor": "0.5", "driver": {"memory": "2g", "memoryOverhead": "1g"}},
            (1000, 3072),
            (1000, 1536),
            id="explicit overhead and factor",
        ),
        pytest.param(
            {"type": "Java", "driver": {"coreLimit": "1200m", "memory": "1024"}}, (1200, 1408), (1000, 1408), id="MiB"
        ),
    ],
)
def test_requests_of_spark(spec: dict[str, Any], driver: tuple[int, int], executor: tuple[int, int]) -> None:
    workload = kinds.interpret(spark(spec))
    assert [c.name for c in workload.components] == ["driver", "executor"]
    for component, (cpu, mib) in zip(workload.components, (driver, executor), strict=True):
        assert dict(component.shape.requests) == {"cpu": cpu, "memory": mib * MIB, "pods": 1}


def test_spark_gpus_and_constraints() -> None:
    executor = {"gpu": {"name": "nvidia.com/gpu", "quantity": 2}, "nodeSelector": {"gpu": "a10"}, "labels": {"a": "b"}}
    workload = kinds.interpret(
        spark({"type": "Scala", "executor": {**executor, "instances": 3}, "nodeSelector": {"x": "y"}})
    )
    driver, workers = workload.components
    assert dict(workers.shape.requests)["nvidia.com/gpu"] == 2
    assert (workers.replicas, workers.labels, workers.shape.node_selector) == (3, (("a", "b"),), (("gpu", "a10"),))
    assert driver.shape.node_selector == (("x", "y"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1g", GIB),
        ("512m", 512 * MIB),
        ("512M", 512 * MIB),
        ("2GB", 2 * GIB),
        ("100", 100 * MIB),
        ("4k", 4096),
        ("1Gi", GIB),
    ],
)
def test_spark_memory(text: str, expected: int) -> None:
    assert memory(text) == expected


@pytest.mark.parametrize("text", ["", "g", "1x", "-1g", "1.5.2g", "999999999999p"])
def test_wrong_spark_memory(text: str) -> None:
    with pytest.raises(QuantityError):
        memory(text)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("kube-queue/min-resources", "cpu: 5\nmemory: 5G\n"),
        ("kube-queue/min-resources", '{"cpu": 5, "memory": "5G"}'),
        ("koord-queue/min-resources", "{cpu: 5, memory: 5G}"),
        ("koord-queue/min-resources", 'cpu: "5"  # cores\n\nmemory: 5G'),
    ],
)
def test_an_annotation_says_what_a_workflow_needs(key: str, text: str) -> None:
    workload = kinds.interpret(workflow(annotations={key: text}))
    assert dict(workload.components[0].shape.requests) == {"cpu": 5000, "memory": 5 * 10**9, "pods": 1}
    assert workload.replicas == 1


def test_a_workflow_without_the_annotation_needs_a_pod() -> None:
    assert dict(kinds.interpret(workflow()).components[0].shape.requests) == {"pods": 1}


def workflow(annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "w", "annotations": annotations or {}},
        "spec": {"entrypoint": "main", "parallelism": 4, "templates": [{"name": "main", "container": {"image": "x"}}]},
    }
