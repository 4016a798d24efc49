"""Karmada's Cluster, as `kubectl get clusters -o yaml` prints it: what a plan can be made on.

Karmada sums up the nodes of a cluster (`resourceSummary`), and its scheduler estimates replicas from these sums where
it has no estimator for the cluster. Here they become one node that has all of it, which gives the same numbers. Where a
cluster has resource models, Karmada counts by these whatever asks for nothing but their resources; here it is warned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from gpufleet.model.cluster import FreeBlock, Health, Inventory, NodeClass
from gpufleet.model.log import ClusterRegistration
from gpufleet.model.resources import resources
from gpufleet.wire import documents_cluster
from gpufleet.wire.documents_cluster import ClusterDocument, WhereDoc, read_amounts, read_spec
from gpufleet.wire.documents_parts import ObjectDoc
from gpufleet.wire.documents_schema import Count, Doc, Findings, check, refuse_placeholders

API_VERSIONS = ("cluster.karmada.io/v1alpha1",)
_SUMMARY = "summary"


class SpecDoc(WhereDoc):
    """What operators write; how the cluster is reached does not matter to a plan."""

    zone: str = ""
    sync_mode: Any = None
    id: Any = None
    api_endpoint: Any = None
    secret_ref: Any = None
    impersonator_secret_ref: Any = None
    insecure_skip_tls_verification: Any = Field(default=None, alias="insecureSkipTLSVerification")
    proxy_url: Any = Field(default=None, alias="proxyURL")
    proxy_header: Any = None
    resource_models: Any = None


class KindDoc(Doc):
    """A kind that is served."""

    kind: str
    name: str = ""


class EnablementDoc(Doc):
    """Kinds of a group and version."""

    group_version: str
    resources: list[KindDoc] = Field(default_factory=list)


class ConditionDoc(Doc):
    """A condition."""

    type: str
    status: str
    message: str = ""
    reason: Any = None
    last_transition_time: Any = None
    observed_generation: Any = None


class NodeSummaryDoc(Doc):
    """How many nodes there are."""

    total_num: Count = 0
    ready_num: Count = 0


class ResourceSummaryDoc(Doc):
    """Sums over the nodes."""

    allocatable: dict[str, Any] = Field(default_factory=dict)
    allocated: dict[str, Any] = Field(default_factory=dict)
    allocating: dict[str, Any] = Field(default_factory=dict)
    allocatable_modelings: Any = None


class StatusDoc(Doc):
    """What Karmada observed."""

    conditions: list[ConditionDoc] = Field(default_factory=list)
    api_enablements: list[EnablementDoc] = Field(default_factory=list)
    node_summary: NodeSummaryDoc = Field(default_factory=NodeSummaryDoc)
    resource_summary: ResourceSummaryDoc | None = None
    kubernetes_version: Any = None
    remedy_actions: Any = None


class KarmadaClusterDoc(ObjectDoc):
    """The whole document."""

    spec: SpecDoc = Field(default_factory=SpecDoc)
    status: StatusDoc | None = None


def read_either(manifest: Mapping[str, Any], findings: Findings) -> ClusterDocument | None:
    """Returns a cluster of ours or of Karmada's; None where too little of it is right."""
    if manifest.get("apiVersion") in API_VERSIONS:
        return read(manifest, findings)
    return documents_cluster.read(manifest, findings)


def read(manifest: Mapping[str, Any], findings: Findings) -> ClusterDocument | None:
    """Returns a cluster to plan on; None where too little of it is right."""
    refuse_placeholders(manifest, findings)
    doc = check(KarmadaClusterDoc, manifest, findings)
    if doc is None:
        return None
    spec = read_spec(doc.metadata, doc.spec, findings)
    if doc.spec.zone and not spec.zones:
        spec = replace(spec, zones=(doc.spec.zone,))
    inventory = None if doc.status is None else _inventory(spec.name, doc.status, findings)
    summary = None if doc.status is None else doc.status.resource_summary
    if doc.spec.resource_models and summary is not None and summary.allocatable_modelings:
        findings.warn(
            "spec.resourceModels",
            "is not read: Karmada counts pods that ask for nothing but its models' resources (mostly CPU and memory) "
            "by these models, and may find room for fewer",
            "write a Cluster of gpufleet.io/v1alpha1 with its nodeClasses to have nodes counted",
        )
    return ClusterDocument(ClusterRegistration(spec), inventory)


def _inventory(cluster: str, doc: StatusDoc, findings: Findings) -> Inventory:
    ready = next((condition for condition in doc.conditions if condition.type == "Ready"), None)
    served = frozenset(f"{api.group_version}/{kind.kind}" for api in doc.api_enablements for kind in api.resources)
    classes: tuple[NodeClass, ...] = ()
    if doc.resource_summary is not None:
        classes = (_summed(doc.resource_summary, findings),)
        findings.warn(
            "status.resourceSummary",
            f"has sums over {doc.node_summary.ready_num} nodes, so a pod may be counted that fits no single one",
            "write a Cluster of gpufleet.io/v1alpha1 with its nodeClasses to have nodes counted",
        )
    return Inventory(
        cluster=cluster,
        health=Health.READY if ready is None or ready.status == "True" else Health.UNREACHABLE,
        message="" if ready is None or ready.status == "True" else ready.message,
        apis=served or None,
        node_classes=classes,
    )


def _summed(doc: ResourceSummaryDoc, findings: Findings) -> NodeClass:
    allocatable, *used = (
        read_amounts(amounts, f"status.resourceSummary.{name}", findings)
        for name, amounts in (
            ("allocatable", doc.allocatable),
            ("allocated", doc.allocated),
            ("allocating", doc.allocating),
        )
    )
    free = {name: max(0, have - sum(part.get(name, 0) for part in used)) for name, have in allocatable.items()}
    return NodeClass(_SUMMARY, resources(allocatable), 1, free=(FreeBlock(1, resources(free)),))
