"""A fleet and workloads as one would find them, as documents: `python -m benchmarks.generate > input.yaml`.

Nodes are partly taken, so that free blocks differ; clusters have several shapes of GPU nodes, some with stock; most
workloads are Deployments, the others training jobs. The same every time.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

from gpufleet.wire.yaml import dump

CLUSTERS = 100
NODES = 100
WORKLOADS = 1_000
NAMESPACES = ("chat", "search", "train", "vision", "speech")

_GPU = "nvidia.com/gpu"
_SHAPES = (
    ("a100", {"cpu": "96", "memory": "1Ti", "pods": "110", _GPU: "8"}),
    ("a10", {"cpu": "64", "memory": "512Gi", "pods": "110", _GPU: "4"}),
    ("l20", {"cpu": "128", "memory": "1Ti", "pods": "110", _GPU: "8"}),
)

Json = Mapping[str, Any]


def documents(clusters: int = CLUSTERS, nodes: int = NODES, workloads: int = WORKLOADS) -> str:
    """Returns all documents as YAML."""
    chance = random.Random(7)
    made: list[Json] = [_cluster(index, nodes, chance) for index in range(clusters)]
    made += [_policy(namespace, clusters) for namespace in NAMESPACES]
    made += [_workload(index, chance) for index in range(workloads)]
    return dump(made)


def _cluster(index: int, nodes: int, chance: random.Random) -> Json:
    shapes = [_SHAPES[(index + i) % len(_SHAPES)] for i in range(2)]
    classes = [_node_class(*shape, nodes // 2, chance, elastic=index % 4 == 3) for shape in shapes]
    return {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": f"c-{index:03d}", "labels": {"tier": "idc" if index < 20 else "cloud"}},
        "spec": {"provider": "idc" if index < 20 else "alibabacloud", "region": f"region-{index % 5}"},
        "status": {"nodeClasses": classes},
    }


def _node_class(name: str, allocatable: Json, nodes: int, chance: random.Random, *, elastic: bool) -> Json:
    gpus = int(allocatable[_GPU])
    counts: dict[int, int] = {}
    for _ in range(nodes):
        left = chance.choice((0, 0, 1, 2, gpus // 2, gpus))
        counts[left] = counts.get(left, 0) + 1
    free = [{"nodes": count, **_left(left, gpus)} for left, count in sorted(counts.items())]
    made: dict[str, Any] = {
        "name": name,
        "labels": {"gpu": name},
        "allocatable": dict(allocatable),
        "nodes": nodes,
        "free": free,
    }
    if elastic:
        made["elastic"] = {"maxNodes": 20, "stock": 10, "provisionSeconds": 180}
    return made


def _left(left: int, gpus: int) -> dict[str, str]:
    return {} if left == gpus else {_GPU: str(left), "cpu": str(8 + 4 * left)}


def _policy(namespace: str, clusters: int) -> Json:
    names = [f"c-{index:03d}" for index in range(clusters)]
    split = max(1, clusters // 5)
    groups = [("first", names[:split]), ("second", names[split : 3 * split]), ("third", names[3 * split :])]
    return {
        "apiVersion": "policy.one.alibabacloud.com/v1alpha1",
        "kind": "PropagationPolicy",
        "metadata": {"name": "all", "namespace": namespace},
        "spec": {
            "autoScaling": {"ecsProvision": True},
            "resourceSelectors": [
                {"apiVersion": "apps/v1", "kind": "Deployment"},
                {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob"},
            ],
            "placement": {
                "clusterAffinities": [{"affinityName": name, "clusterNames": part} for name, part in groups if part],
                "replicaScheduling": {
                    "replicaSchedulingType": "Divided",
                    "replicaDivisionPreference": "Weighted",
                    "weightPreference": {"dynamicWeight": "AvailableReplicas"},
                },
            },
        },
    }


def _workload(index: int, chance: random.Random) -> Json:
    namespace = NAMESPACES[index % len(NAMESPACES)]
    gpus = chance.choice((1, 1, 1, 2, 4))
    if index % 5 == 4:
        return _job(f"train-{index:04d}", namespace, chance.choice((1, 3, 7)), gpus)
    return _deployment(f"serve-{index:04d}", namespace, chance.choice((1, 2, 2, 4, 8, 16)), gpus)


def _pod(gpus: int) -> dict[str, Any]:
    requests = {"cpu": str(4 * gpus), "memory": f"{32 * gpus}Gi"}
    resources = {"requests": requests, "limits": {_GPU: str(gpus)}}
    return {"containers": [{"name": "main", "image": "registry.example/model:1", "resources": resources}]}


def _deployment(name: str, namespace: str, replicas: int, gpus: int) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": _pod(gpus)},
        },
    }


def _job(name: str, namespace: str, workers: int, gpus: int) -> Json:
    def replica(count: int) -> dict[str, Any]:
        pod = _pod(gpus)
        pod["containers"][0]["name"] = "pytorch"
        return {"replicas": count, "restartPolicy": "OnFailure", "template": {"spec": pod}}

    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"pytorchReplicaSpecs": {"Master": replica(1), "Worker": replica(workers)}},
    }


if __name__ == "__main__":
    sys.stdout.write(documents())
