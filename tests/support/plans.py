"""Documents of a small fleet, as users of `plan` and `simulate` write them, and what is planned on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpufleet.model.placement import Placement
from gpufleet.wire.documents import parse_text
from gpufleet.wire.yaml import dump
from sim.plan import plan

Json = dict[str, Any]
LLM = "test/Deployment/llm"
GPU = "nvidia.com/gpu"
DYNAMIC = {
    "replicaSchedulingType": "Divided",
    "replicaDivisionPreference": "Weighted",
    "weightPreference": {"dynamicWeight": "AvailableReplicas"},
}
KINDS = (("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("kubeflow.org/v1", "PyTorchJob"))


def cluster(
    name: str,
    *free: int,
    full: int = 0,
    elastic: int | None = None,
    labels: Json | None = None,
    spec: Json | None = None,
    **status: Any,
) -> Json:
    """Returns a cluster with a node of 8 GPUs for each number of free ones, full nodes, and perhaps nodes in stock."""
    stock: Json = {} if elastic is None else {"elastic": {"maxNodes": 100, "stock": elastic}}
    return {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec or {},
        "status": {"health": "Ready", "nodeClasses": [node_class(*free, full=full, **stock)], **status},
    }


def node_class(*free: int, full: int = 0, gpus: int = 8, **more: Any) -> Json:
    """Returns the class `gpu`; `elastic` and others may be added."""
    return {
        "name": "gpu",
        "allocatable": {"cpu": "64", "memory": "512Gi", GPU: str(gpus)},
        "nodes": len(free) + full,
        "free": [{"nodes": 1, GPU: str(count)} for count in free],
        **more,
    }


def policy(*groups: Iterable[str], division: Json | None = None, **spec: Any) -> Json:
    """Returns a policy for the namespace test over priority groups (none: all clusters); ``division`` {}: not said."""
    affinities = [{"affinityName": f"group{i}", "clusterNames": list(names)} for i, names in enumerate(groups)]
    placement: dict[str, Any] = {"clusterAffinities": affinities} if affinities else {}
    if division != {}:
        placement["replicaScheduling"] = division or DYNAMIC
    return {
        "apiVersion": "policy.one.alibabacloud.com/v1alpha1",
        "kind": "PropagationPolicy",
        "metadata": {"name": "all", "namespace": "test"},
        "spec": {
            "resourceSelectors": [{"apiVersion": version, "kind": kind} for version, kind in KINDS],
            "placement": placement,
            **spec,
        },
    }


def karmada(name: str, placement: Json | None = None, *, kind: str = "PropagationPolicy", **spec: Any) -> Json:
    """Returns a policy for Deployments as it is written for Karmada."""
    metadata = {"name": name} if kind.startswith("Cluster") else {"name": name, "namespace": "test"}
    selectors = [{"apiVersion": "apps/v1", "kind": "Deployment"}]
    said = {} if placement is None else {"placement": placement}
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": {"resourceSelectors": selectors, **said, **spec},
    }


def overriding(
    overriders: Json | None = None,
    /,
    *,
    kind: str = "OverridePolicy",
    api_version: str = "policy.karmada.io/v1alpha1",
    **spec: Any,
) -> dict[str, Any]:
    """Returns an override policy with one rule for every cluster, or with the rules in ``spec``."""
    metadata = {"name": "o"} if kind.startswith("Cluster") else {"name": "o", "namespace": "test"}
    rules = {} if overriders is None else {"overrideRules": [{"overriders": overriders}]}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": {**rules, **spec}}


def template(app: str, gpu: int, **pod_spec: Any) -> Json:
    """Returns a pod template."""
    container = {"name": "main", "image": "x", "resources": {"limits": {GPU: str(gpu)}}}
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [container], **pod_spec}}


def deployment(
    replicas: int,
    name: str = "llm",
    gpu: int = 1,
    kind: str = "Deployment",
    uid: str = "",
    labels: Json | None = None,
    **pod_spec: Any,
) -> Json:
    """Returns a Deployment in the namespace test, or a kind of the same shape."""
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "test", "uid": uid, "labels": labels or {}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, gpu, **pod_spec),
        },
    }


def job(workers: int, gpu: int = 8) -> Json:
    """Returns a PyTorchJob of workers only."""
    specs = {"Worker": {"replicas": workers, "template": template("train", gpu)}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "train", "namespace": "test"},
        "spec": {"pytorchReplicaSpecs": specs},
    }


def planned(*documents: Json) -> dict[str, Placement]:
    """Returns what is planned on documents, by workload."""
    return {found.workload: found for found in plan(parse_text(dump(documents)))}


def shares(found: Placement) -> dict[str, int]:
    """Returns replicas by cluster."""
    return {share.cluster: share.replicas for share in found.shares}


def codes(found: Placement) -> set[str]:
    """Returns the reason codes of a placement."""
    return {reason.code.value for reason in found.reasons}
