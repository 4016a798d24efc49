"""What the benchmarks run on: a system with simulated clusters, and workloads to submit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpufleet.wire.records import dump_manifest, dump_policy

NAMESPACE = "bench"
POLICY = "PropagationPolicy/bench/all"


def clusters(count: int, nodes: int) -> list[Mapping[str, Any]]:
    """Returns Cluster documents: ``count`` clusters of ``nodes`` nodes with 8 GPUs each."""
    return [
        {
            "apiVersion": "gpufleet.io/v1alpha1",
            "kind": "Cluster",
            "metadata": {"name": f"c-{index:03d}"},
            "spec": {"provider": "idc", "region": f"region-{index % 5}"},
            "status": {
                "nodeClasses": [
                    {
                        "name": "a100",
                        "labels": {"gpu": "a100"},
                        "allocatable": {"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": "8"},
                        "nodes": nodes,
                    }
                ]
            },
        }
        for index in range(count)
    ]


def policy() -> bytes:
    """Returns a policy that divides every Deployment of the namespace by available replicas."""
    return dump_policy(
        {
            "apiVersion": "policy.one.alibabacloud.com/v1alpha1",
            "kind": "PropagationPolicy",
            "metadata": {"name": "all", "namespace": NAMESPACE},
            "spec": {
                "resourceSelectors": [{"apiVersion": "apps/v1", "kind": "Deployment"}],
                "placement": {
                    "replicaScheduling": {
                        "replicaSchedulingType": "Divided",
                        "replicaDivisionPreference": "Weighted",
                        "weightPreference": {"dynamicWeight": "AvailableReplicas"},
                    }
                },
            },
        }
    )


def deployment(name: str, replicas: int = 1) -> tuple[str, bytes]:
    """Returns key and value of a Deployment without GPUs, so that many fit."""
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "containers": [
                        {
                            "name": "main",
                            "image": "registry.example/app:1",
                            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                        }
                    ]
                },
            },
        },
    }
    return f"{NAMESPACE}/Deployment/{name}", dump_manifest(manifest)
