"""The Cluster document: what an operator registers, and what was observed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from gpufleet.model import quantity
from gpufleet.model.cluster import (
    ClusterSpec,
    ElasticStock,
    FreeBlock,
    Health,
    Inventory,
    ModelStock,
    NamespaceQuota,
    NodeClass,
    Scoring,
    VirtualNode,
)
from gpufleet.model.kinds.reading import join
from gpufleet.model.log import ClusterAccess, ClusterRegistration
from gpufleet.model.names import API_VERSION
from gpufleet.model.requests import bounded_by
from gpufleet.model.resources import Resources, render_resources, resources
from gpufleet.wire.documents_parts import MetadataDoc, ObjectDoc, TaintDoc, name_of, read_labels, read_taints
from gpufleet.wire.documents_schema import INT32_MAX, Count, Doc, Findings, check, refuse_placeholders
from gpufleet.wire.records_base import render_time
from gpufleet.wire.records_clusters import scoring_object

API_VERSIONS = (API_VERSION,)
# What a kubelet allows when nobody says anything else.
DEFAULT_PODS = 110
DEFAULT_PROVISION_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class ClusterDocument:
    """A registration, and the inventory where the document has a `status`."""

    registration: ClusterRegistration
    inventory: Inventory | None = None


class AccessDoc(Doc):
    """How the API is reached."""

    kubeconfig: str = ""
    context: str = ""
    secret_ref: dict[str, Any] | None = None
    simulated: dict[str, Any] | None = None


class ScoredDoc(Doc):
    """A resource that a scoring strategy looks at."""

    name: str = Field(min_length=1)
    weight: Annotated[int, Field(ge=1, le=100)] = 1


class ScoringDoc(Doc):
    """By what the cluster's own scheduler chooses among nodes that fit, as kube-scheduler's configuration has it."""

    type: Literal["LeastAllocated", "MostAllocated"] = "LeastAllocated"
    resources: list[ScoredDoc] = Field(default_factory=list)


class WhereDoc(Doc):
    """Where a cluster is, and what keeps workloads away from it."""

    provider: str = ""
    region: str = ""
    zones: list[str] = Field(default_factory=list)
    taints: list[TaintDoc] = Field(default_factory=list)


class SpecDoc(WhereDoc):
    """What operators write."""

    access: AccessDoc | None = None
    scoring_strategy: ScoringDoc | None = None


class FreeDoc(Doc):
    """``nodes`` nodes; every other field is a resource."""

    model_config = ConfigDict(extra="allow")

    nodes: Count = 1
    gpu_free: list[int] = Field(default_factory=list)


class ElasticDoc(Doc):
    """Nodes that may still be added."""

    max_nodes: Count | None = None
    stock: Count | None = None
    provision_seconds: float = Field(DEFAULT_PROVISION_SECONDS, ge=0, le=INT32_MAX)


class NodeClassDoc(Doc):
    """Nodes alike."""

    name: str = Field(min_length=1)
    labels: dict[str, str] = Field(default_factory=dict)
    taints: list[TaintDoc] = Field(default_factory=list)
    allocatable: dict[str, Any]
    nodes: Count
    free: list[FreeDoc] | None = None
    elastic: ElasticDoc | None = None


class StockDoc(Doc):
    """GPUs of one model series."""

    gpu_model_series: str = Field(min_length=1)
    gpus: Count


class VirtualNodeDoc(Doc):
    """A virtual kubelet."""

    name: str = Field(min_length=1)
    labels: dict[str, str] = Field(default_factory=dict)
    taints: list[TaintDoc] = Field(default_factory=list)
    stock: list[StockDoc] | None = None


class NamespaceQuotaDoc(Doc):
    """A ResourceQuota of a namespace, as its own status has it."""

    namespace: str = Field(min_length=1)
    hard: dict[str, Any]
    used: dict[str, Any] = Field(default_factory=dict)


class StatusDoc(Doc):
    """What was observed."""

    health: Literal["Ready", "Unreachable"] = "Ready"
    message: str = ""
    apis: list[str] | None = None
    namespaces: list[str] | None = None
    node_classes: list[NodeClassDoc] = Field(default_factory=list)
    virtual_nodes: list[VirtualNodeDoc] = Field(default_factory=list)
    resource_quotas: list[NamespaceQuotaDoc] = Field(default_factory=list)


class ClusterDoc(ObjectDoc):
    """The whole document."""

    spec: SpecDoc = Field(default_factory=SpecDoc)
    status: StatusDoc | None = None


def _scoring(doc: ScoringDoc | None, findings: Findings) -> Scoring | None:
    if doc is None:
        return None
    weights = {item.name: item.weight for item in doc.resources}
    if len(weights) < len(doc.resources):
        findings.error("spec.scoringStrategy.resources", "names a resource twice", "give each resource one weight")
    return Scoring(doc.type == "MostAllocated", tuple(sorted(weights.items())))


def read(manifest: Mapping[str, Any], findings: Findings) -> ClusterDocument | None:
    """Returns a Cluster document; None where too little of it is right."""
    refuse_placeholders(manifest, findings)
    doc = check(ClusterDoc, manifest, findings)
    if doc is None:
        return None
    spec = read_spec(doc.metadata, doc.spec, findings)
    spec = replace(spec, scoring_strategy=_scoring(doc.spec.scoring_strategy, findings))
    registration = ClusterRegistration(spec, _access(doc.spec.access or AccessDoc(), findings))
    return ClusterDocument(registration, None if doc.status is None else _inventory(spec.name, doc.status, findings))


def read_spec(metadata: MetadataDoc, where: WhereDoc, findings: Findings) -> ClusterSpec:
    """Returns what a cluster's document says of its name, its labels and where it is."""
    _, name = name_of(metadata, findings, namespaced=False)
    return ClusterSpec(
        name=name,
        labels=read_labels(metadata.labels, "metadata.labels", findings),
        provider=where.provider,
        region=where.region,
        zones=tuple(where.zones),
        taints=read_taints(where.taints, "spec.taints", findings),
    )


def _access(doc: AccessDoc, findings: Findings) -> ClusterAccess:
    ways = {"kubeconfig": doc.kubeconfig, "secretRef": doc.secret_ref, "simulated": doc.simulated}
    named = [way for way, value in ways.items() if value not in ("", None)]
    if len(named) > 1:
        findings.error("spec.access", f"names {' and '.join(named)}", "keep one way to reach the cluster")
    if doc.context and not doc.kubeconfig:
        findings.error("spec.access.context", "needs a kubeconfig", "name the file in spec.access.kubeconfig")
    return ClusterAccess(doc.kubeconfig, doc.context, doc.secret_ref, doc.simulated)


def _inventory(cluster: str, doc: StatusDoc, findings: Findings) -> Inventory:
    _unique([c.name for c in doc.node_classes], "status.nodeClasses", findings)
    _unique([n.name for n in doc.virtual_nodes], "status.virtualNodes", findings)
    for index, api in enumerate(doc.apis or ()):
        if not 1 <= api.count("/") <= 2:
            findings.error(
                f"status.apis[{index}]", f"is {api!r}", "write apiVersion and kind, such as apps/v1/Deployment"
            )
    return Inventory(
        cluster=cluster,
        health=Health(doc.health),
        message=doc.message,
        apis=None if doc.apis is None else frozenset(doc.apis),
        namespaces=None if doc.namespaces is None else frozenset(doc.namespaces),
        node_classes=tuple(
            _node_class(item, f"status.nodeClasses[{index}]", findings) for index, item in enumerate(doc.node_classes)
        ),
        virtual_nodes=tuple(
            _virtual_node(item, f"status.virtualNodes[{index}]", findings)
            for index, item in enumerate(doc.virtual_nodes)
        ),
        quotas=tuple(
            _namespace_quota(item, f"status.resourceQuotas[{index}]", findings)
            for index, item in enumerate(doc.resource_quotas)
        ),
    )


def _namespace_quota(doc: NamespaceQuotaDoc, path: str, findings: Findings) -> NamespaceQuota:
    """Returns a quota on what pods request; what bounds limits or counts objects is left to the cluster."""
    named = {key: name for key in doc.hard if (name := bounded_by(key))}
    for key in doc.used:
        if key not in doc.hard:
            findings.error(f"{path}.used[{key}]", "is not in hard")
    hard = read_amounts({name: doc.hard[key] for key, name in named.items()}, f"{path}.hard", findings)
    used = {name: doc.used[key] for key, name in named.items() if key in doc.used}
    return NamespaceQuota(
        doc.namespace,
        tuple(sorted(set(named.values()))),
        resources(hard),
        resources(read_amounts(used, f"{path}.used", findings)),
    )


def _unique(names: list[str], path: str, findings: Findings) -> None:
    for index, name in enumerate(names):
        first = names.index(name)
        if first != index:
            findings.error(f"{path}[{index}].name", f"{name!r} is also the name of number {first + 1} in the list")


def _node_class(doc: NodeClassDoc, path: str, findings: Findings) -> NodeClass:
    allocatable = read_amounts(doc.allocatable, f"{path}.allocatable", findings)
    if "pods" not in doc.allocatable:
        allocatable["pods"] = DEFAULT_PODS
    if doc.free is None:
        free: tuple[FreeBlock, ...] = (FreeBlock(doc.nodes, resources(allocatable)),) if doc.nodes else ()
    else:
        free = tuple(
            _free(block, allocatable, f"{path}.free[{index}]", findings)
            for index, block in enumerate(doc.free)
            if block.nodes
        )
        listed = sum(block.nodes for block in doc.free)
        if listed > doc.nodes:
            findings.error(
                f"{path}.free",
                f"lists {listed} nodes, but the class has {doc.nodes}",
                "list each node once; nodes that are not listed are full",
            )
    return NodeClass(
        name=doc.name,
        allocatable=resources(allocatable),
        nodes=doc.nodes,
        labels=read_labels(doc.labels, f"{path}.labels", findings),
        taints=read_taints(doc.taints, f"{path}.taints", findings),
        free=free,
        elastic=_elastic(doc.elastic, f"{path}.elastic", findings),
    )


def _free(doc: FreeDoc, allocatable: Mapping[str, int], path: str, findings: Findings) -> FreeBlock:
    given = read_amounts(doc.model_extra or {}, path, findings)
    for name, amount in given.items():
        whole = allocatable.get(name, 0)
        if amount > whole:
            findings.error(
                join(path, name),
                f"{quantity.render(amount, name)} is more than the allocatable {quantity.render(whole, name)}",
                "free is what is left of one node",
            )
    for index, thousandths in enumerate(doc.gpu_free):
        if not 0 <= thousandths <= 1000:
            findings.error(f"{path}.gpuFree[{index}]", f"is {thousandths}", "write thousandths of a device, 0 to 1000")
    return FreeBlock(doc.nodes, resources({**allocatable, **given}), tuple(doc.gpu_free))


def read_amounts(values: Mapping[str, Any], path: str, findings: Findings) -> dict[str, int]:
    """Returns amounts of what is there, rounded down."""
    view = findings.view(values, path)
    amounts = {}
    for name in values:
        before = len(findings.errors)
        amount = view.quantity(name)
        if amount is not None and len(findings.errors) == before:
            amounts[name] = quantity.parse(values[name], name, round_up=False)
    return amounts


def _elastic(doc: ElasticDoc | None, path: str, findings: Findings) -> ElasticStock | None:
    if doc is None:
        return None
    if doc.max_nodes is None and doc.stock is None:
        findings.error(path, "has neither maxNodes nor stock", "say how many nodes may still be added")
        return None
    bounds = [bound for bound in (doc.max_nodes, doc.stock) if bound is not None]
    first, last = bounds[0], bounds[-1]
    return ElasticStock(first, last, doc.provision_seconds)


def _virtual_node(doc: VirtualNodeDoc, path: str, findings: Findings) -> VirtualNode:
    stock = None
    if doc.stock is not None:
        _unique_models(doc.stock, f"{path}.stock", findings)
        stock = tuple(ModelStock(item.gpu_model_series, item.gpus) for item in doc.stock)
    return VirtualNode(
        name=doc.name,
        labels=read_labels(doc.labels, f"{path}.labels", findings),
        taints=read_taints(doc.taints, f"{path}.taints", findings),
        stock=stock,
    )


def _unique_models(docs: list[StockDoc], path: str, findings: Findings) -> None:
    seen: set[str] = set()
    for index, doc in enumerate(docs):
        if doc.gpu_model_series in seen:
            findings.error(f"{path}[{index}].gpuModelSeries", f"{doc.gpu_model_series!r} is already listed")
        seen.add(doc.gpu_model_series)


# --- Writing ------------------------------------------------------------------------------------------------------


def dump(registration: ClusterRegistration | ClusterSpec, inventory: Inventory | None = None) -> dict[str, Any]:
    """Returns the Cluster document of a registration and of what was observed; `read` takes it back."""
    if isinstance(registration, ClusterSpec):
        registration = ClusterRegistration(registration)
    spec, access = registration.spec, registration.access
    metadata: dict[str, Any] = {"name": spec.name}
    if spec.labels:
        metadata["labels"] = dict(spec.labels)
    how: dict[str, Any] = _set(kubeconfig=access.kubeconfig, context=access.context)
    if access.secret_ref is not None:
        how["secretRef"] = dict(access.secret_ref)
    if access.simulated is not None:
        how["simulated"] = dict(access.simulated)
    document: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Cluster",
        "metadata": metadata,
        "spec": _set(
            provider=spec.provider,
            region=spec.region,
            zones=list(spec.zones),
            taints=_dump_taints(spec.taints),
            access=how,
            scoringStrategy=scoring_object(spec.scoring_strategy),
        ),
    }
    if inventory is not None:
        document["status"] = _dump_status(inventory)
    return document


def _dump_status(inventory: Inventory) -> dict[str, Any]:
    status: dict[str, Any] = {"health": inventory.health.value, **_set(message=inventory.message)}
    if inventory.apis is not None:
        status["apis"] = sorted(inventory.apis)
    if inventory.namespaces is not None:
        status["namespaces"] = sorted(inventory.namespaces)
    status["nodeClasses"] = [_dump_class(item) for item in inventory.node_classes]
    if inventory.virtual_nodes:
        status["virtualNodes"] = [_dump_virtual(item) for item in inventory.virtual_nodes]
    if inventory.quotas:
        status["resourceQuotas"] = [_dump_quota(item) for item in inventory.quotas]
    return status


def _dump_quota(item: NamespaceQuota) -> dict[str, Any]:
    hard = {**dict.fromkeys(item.bounds, "0"), **render_resources(item.hard)}
    return {"namespace": item.namespace, "hard": hard, **_set(used=render_resources(item.used))}


def _dump_class(item: NodeClass) -> dict[str, Any]:
    allocatable = {name: quantity.render(amount, name) for name, amount in item.allocatable}
    allocatable.setdefault("pods", "0")
    document: dict[str, Any] = {
        "name": item.name,
        **_set(labels=dict(item.labels), taints=_dump_taints(item.taints)),
        "allocatable": allocatable,
        "nodes": item.nodes,
        "free": [_dump_free(block, item.allocatable) for block in item.free],
    }
    if item.elastic is not None:
        seconds = item.elastic.provision_seconds
        document["elastic"] = {
            "maxNodes": item.elastic.max_nodes,
            "stock": item.elastic.stock,
            "provisionSeconds": int(seconds) if seconds == int(seconds) else seconds,
        }
    return document


def _dump_free(block: FreeBlock, allocatable: Resources) -> dict[str, Any]:
    """Writes the resources of which not all is free."""
    free = dict(block.free)
    parts = {
        name: quantity.render(free.get(name, 0), name) for name, whole in allocatable if free.get(name, 0) != whole
    }
    return {"nodes": block.nodes, **parts, **_set(gpuFree=list(block.gpu_free))}


def _dump_virtual(node: VirtualNode) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": node.name,
        **_set(labels=dict(node.labels), taints=_dump_taints(node.taints)),
    }
    if node.stock is not None:
        document["stock"] = [{"gpuModelSeries": item.model, "gpus": item.gpus} for item in node.stock]
    return document


def _dump_taints(taints: Any) -> list[dict[str, Any]]:
    return [
        {
            "key": taint.key,
            **_set(value=taint.value),
            "effect": taint.effect,
            **_set(timeAdded=render_time(taint.since) if taint.since is not None else ""),
        }
        for taint in taints
    ]


def _set(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
