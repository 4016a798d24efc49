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
        pytest.param({"type": "Java"}, (1000, 1408), (1000, 1408), id="defaults: 1g Java is 1408 MiB (T27)"),
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


# --- The table of specification 11.2: count and request per component, and what ranks the job (14) ------------------

GPU = "nvidia.com/gpu"
Row = tuple[int, int, int, int]  # pods, millicores, MiB and GPUs of each


def pods(
    cpu: Any, memory: str = "1Gi", gpu: int = 0, *, initial: Any = None, rank: str = "", **spec: Any
) -> dict[str, Any]:
    """A template whose GPUs are limits only, with perhaps a larger init container."""
    limits = {GPU: str(gpu)} if gpu else {}
    first = [container({"cpu": initial})] if initial is not None else []
    ranked = {"priorityClassName": rank} if rank else {}
    return {
        "metadata": {"labels": {"app": "x"}},
        "spec": {
            "initContainers": first,
            "containers": [container({"cpu": cpu, "memory": memory}, limits)],
            **ranked,
            **spec,
        },
    }


def of(api_version: str, kind: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "x", "namespace": "n", **metadata},
        "spec": spec,
    }


def serving(kind: str, api_version: str = "apps/v1", **spec: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app": "x"}}
    return of(api_version, kind, {"selector": selector, "template": pods("500m", gpu=1, rank="online"), **spec})


RAY = {
    "headGroupSpec": {"rayStartParams": {}, "template": pods(2, "4Gi", rank="head")},
    "workerGroupSpecs": [
        {"groupName": "small", "replicas": 1, "minReplicas": 2, "maxReplicas": 9, "template": pods(4, gpu=1)},
        {"groupName": "hosts", "replicas": 2, "numOfHosts": 4, "template": pods(8, "8Gi", 8, rank="hosts")},
    ],
}
RAY_ROWS = {"head": (1, 2000, 4096, 0), "small": (2, 4000, 1024, 1), "hosts": (8, 8000, 8192, 8)}
SPARK = {
    "type": "Java",
    "mode": "cluster",
    "batchSchedulerOptions": {"priorityClassName": "offline"},
    "driver": {"coreRequest": "200m", "cores": 1, "memory": "1g"},
    "executor": {"cores": 2, "memory": "1g", "instances": 3, "gpu": {"name": GPU, "quantity": 1}},
}


@pytest.mark.parametrize(
    ("manifest", "rows", "rank"),
    [
        pytest.param(
            of(
                "kubeflow.org/v1",
                "PyTorchJob",
                {
                    "pytorchReplicaSpecs": {
                        "Master": {"template": pods(1, gpu=1, rank="high")},
                        "Worker": {"replicas": 3, "template": pods(2, "2Gi", 8, initial=4, rank="low")},
                    }
                },
            ),
            {"Master": (1, 1000, 1024, 1), "Worker": (3, 4000, 2048, 8)},
            "low",
            id="PyTorchJob (T26)",
        ),
        pytest.param(
            of(
                "kubeflow.org/v1",
                "TFJob",
                {
                    "tfReplicaSpecs": {
                        "Chief": {"template": pods(1)},
                        "Evaluator": {"template": pods(2)},
                        "PS": {"replicas": 2, "template": pods(3)},
                        "Worker": {"replicas": 4, "template": pods(4, gpu=1, rank="train")},
                    }
                },
            ),
            {
                "PS": (2, 3000, 1024, 0),
                "Worker": (4, 4000, 1024, 1),
                "Chief": (1, 1000, 1024, 0),
                "Evaluator": (1, 2000, 1024, 0),
            },
            "",
            id="TFJob",
        ),
        pytest.param(
            of(
                "kubeflow.org/v2beta1",
                "MPIJob",
                {
                    "slotsPerWorker": 8,
                    "mpiReplicaSpecs": {
                        "Launcher": {"replicas": 1, "template": pods("500m", rank="mpi")},
                        "Worker": {"replicas": 2, "template": pods(16, "64Gi", 8)},
                    },
                },
            ),
            {"Launcher": (1, 500, 1024, 0), "Worker": (2, 16000, 65536, 8)},
            "mpi",
            id="MPIJob",
        ),
        pytest.param(
            spark(SPARK),
            {"driver": (1, 200, 1408, 0), "executor": (3, 2000, 1408, 1)},
            "offline",
            id="SparkApplication (T27)",
        ),
        pytest.param(
            spark({**SPARK, "dynamicAllocation": {"enabled": True, "initialExecutors": 5, "minExecutors": 4}}),
            {"driver": (1, 200, 1408, 0), "executor": (5, 2000, 1408, 1)},
            "offline",
            id="SparkApplication with dynamic allocation",
        ),
        pytest.param(
            of(
                "argoproj.io/v1alpha1",
                "Workflow",
                {
                    "entrypoint": "a",
                    "parallelism": 4,
                    "templates": [{"name": "a", "priorityClassName": "flow", "container": {"image": "x"}}],
                },
                annotations={"kube-queue/min-resources": f"cpu: 5\nmemory: 5Gi\n{GPU}: 2\n"},
            ),
            {"main": (1, 5000, 5120, 2)},
            "flow",
            id="Workflow",
        ),
        pytest.param(
            of("batch/v1", "Job", {"parallelism": 4, "completions": 3, "template": pods(1, gpu=1, rank="batch")}),
            {"main": (3, 1000, 1024, 1)},
            "batch",
            id="Job",
        ),
        pytest.param(
            of(
                "batch/v1",
                "CronJob",
                {
                    "schedule": "0 3 * * *",
                    "jobTemplate": {"spec": {"parallelism": 2, "template": pods(1, rank="nightly")}},
                },
            ),
            {"main": (2, 1000, 1024, 0)},
            "nightly",
            id="CronJob",
        ),
        pytest.param(of("ray.io/v1", "RayCluster", RAY), RAY_ROWS, "head", id="RayCluster"),
        pytest.param(
            of("ray.io/v1", "RayJob", {"entrypoint": "python x.py", "rayClusterSpec": RAY}),
            RAY_ROWS,
            "head",
            id="RayJob",
        ),
        pytest.param(serving("Deployment"), {"main": (1, 500, 1024, 1)}, "online", id="Deployment"),
        pytest.param(serving("StatefulSet", replicas=3), {"main": (3, 500, 1024, 1)}, "online", id="StatefulSet"),
        pytest.param(
            serving("CloneSet", "apps.kruise.io/v1alpha1", replicas=2),
            {"main": (2, 500, 1024, 1)},
            "online",
            id="CloneSet",
        ),
        pytest.param(
            {**of("v1", "Pod", {}), **pods(1, "2Gi", 2, rank="one"), "metadata": {"name": "x"}},
            {"main": (1, 1000, 2048, 2)},
            "one",
            id="Pod",
        ),
    ],
)
def test_the_table_of_kinds(manifest: dict[str, Any], rows: dict[str, Row], rank: str) -> None:
    workload = kinds.interpret(manifest)
    found = {}
    for component in workload.components:
        requests = dict(component.shape.requests)
        assert requests.pop("pods") == 1
        row = (requests.pop("cpu"), requests.pop("memory") // MIB, requests.pop(GPU, 0))
        found[component.name] = (component.replicas, *row)
        assert not requests
    assert found == rows
    assert workload.priority_class == rank
    assert workload.replicas == sum(count for count, *_ in rows.values())
