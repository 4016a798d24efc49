"""Inventory: the messages of `inventory.proto`."""

from __future__ import annotations

from sys import intern
from typing import Any

from pydantic import Field

from gpufleet.model.cluster import (
    ComponentPods,
    ElasticStock,
    FreeBlock,
    Health,
    ModelStock,
    NamespaceQuota,
    NodeClass,
    NodePods,
    SnapshotId,
    UnitPods,
    VirtualNode,
    WorkloadPods,
)
from gpufleet.model.log import ClassInventory, InventorySummary
from gpufleet.model.resources import render_resources
from gpufleet.wire.errors import RecordError, RecordReason
from gpufleet.wire.records_base import (
    Amounts,
    Count,
    Pairs,
    Text,
    Time,
    Wire,
    compact,
    render_time,
    time_or_none,
)
from gpufleet.wire.records_clusters import TaintMessage, taint_object
from gpufleet.wire.records_keys import class_key, pods_key


class SnapshotMessage(Wire):
    """`Snapshot`: which look at a cluster a record belongs to."""

    incarnation: str = ""
    epoch: Count = 0
    n: Count = 0

    def to_model(self) -> SnapshotId:
        """Returns the domain's snapshot id."""
        return SnapshotId(self.incarnation, self.epoch, self.n)


class FreeBlockMessage(Wire):
    """`FreeBlock`: this many nodes with exactly this much left each."""

    nodes: Count = 0
    free: Amounts = ()
    gpu_free: tuple[Count, ...] = ()
    numbers: tuple[Count, ...] = ()


class ElasticStockMessage(Wire):
    """`ElasticStock`: nodes that could be created."""

    max_nodes: Count = 0
    stock: Count = 0
    provision_seconds: float = Field(180.0, ge=0)

    def to_model(self) -> ElasticStock:
        """Returns the domain's stock."""
        return ElasticStock(self.max_nodes, self.stock, self.provision_seconds)


class NodeClassMessage(Wire):
    """`NodeClass`: nodes alike in labels, taints and shape."""

    name: Text
    allocatable: Amounts = ()
    nodes: Count = 0
    labels: Pairs = ()
    taints: tuple[TaintMessage, ...] = ()
    free: tuple[FreeBlockMessage, ...] = ()
    elastic: ElasticStockMessage | None = None

    def to_model(self) -> NodeClass:
        """Returns the domain's node class. Raises RecordError where more nodes are free than there are."""
        elastic = self.elastic
        free = tuple(FreeBlock(block.nodes, block.free, block.gpu_free, block.numbers) for block in self.free)
        if sum(block.nodes for block in free) > self.nodes:
            raise RecordError(
                RecordReason.OUT_OF_RANGE,
                "nodeClass.free",
                f"the free blocks have more than the {self.nodes} nodes of the class",
                "list each node in one block at most",
            )
        return NodeClass(
            name=self.name,
            allocatable=self.allocatable,
            nodes=self.nodes,
            labels=self.labels,
            taints=tuple(taint.to_model() for taint in self.taints),
            free=free,
            elastic=None if elastic is None else elastic.to_model(),
        )


class ModelStockMessage(Wire):
    """`ModelStock`: GPUs of one model series."""

    gpu_model_series: Text
    gpus: Count = 0


class VirtualStockMessage(Wire):
    """`VirtualStock`: models not listed have none."""

    models: tuple[ModelStockMessage, ...] = ()


class VirtualNodeMessage(Wire):
    """`VirtualNode`: one pod is one instance."""

    name: Text
    labels: Pairs = ()
    taints: tuple[TaintMessage, ...] = ()
    stock: VirtualStockMessage | None = None

    def to_model(self) -> VirtualNode:
        """Returns the domain's virtual node."""
        stock = self.stock
        return VirtualNode(
            name=self.name,
            labels=self.labels,
            taints=tuple(taint.to_model() for taint in self.taints),
            stock=None
            if stock is None
            else tuple(ModelStock(item.gpu_model_series, item.gpus) for item in stock.models),
        )


class NamesMessage(Wire):
    """`Names`: a set whose absence means something else than its emptiness."""

    items: tuple[str, ...] = ()


class NamespaceQuotaMessage(Wire):
    """`NamespaceQuota`: a ResourceQuota of a namespace."""

    namespace: Text
    bounds: tuple[str, ...] = ()
    hard: Amounts = ()
    used: Amounts = ()


class ClusterSummaryMessage(Wire):
    """`ClusterSummary`: closes a snapshot."""

    health: Health
    message: str = ""
    observed_at: Time = 0.0
    apis: NamesMessage | None = None
    namespaces: NamesMessage | None = None
    virtual_nodes: tuple[VirtualNodeMessage, ...] = ()
    classes: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    quotas: tuple[NamespaceQuotaMessage, ...] = ()


class UnitPodsMessage(Wire):
    """`UnitPods`: what the pods of one component do in one unit of a ResourcePolicy."""

    unit: str = ""
    bound: Count = 0
    finished: Count = 0
    terminating: Count = 0


class NodePodsMessage(Wire):
    """`NodePods`: how many pods of one component lie on one node."""

    node_class: Text
    number: Count = 0
    pods: Count = 0
    unit: str = ""

    def to_model(self) -> NodePods:
        """Returns the domain's pods on a node."""
        return NodePods(intern(self.node_class), self.number, self.pods, self.unit)


class ComponentPodsMessage(Wire):
    """`ComponentPods`: what the pods of one component do."""

    bound: Count = 0
    ready: Count = 0
    finished: Count = 0
    failed: Count = 0
    evicted: Count = 0
    unschedulable: tuple[Time, ...] = ()
    provisioning: Count = 0
    provisioning_since: Time | None = None
    no_stock: bool = False
    message: str = ""
    units: tuple[UnitPodsMessage, ...] = ()
    timed_out: Count = 0
    nodes: tuple[NodePodsMessage, ...] = ()
    leaving: tuple[NodePodsMessage, ...] = ()

    def to_model(self) -> ComponentPods:
        """Returns the domain's counts."""
        return ComponentPods(
            self.bound,
            self.ready,
            self.finished,
            self.failed,
            self.evicted,
            self.unschedulable,
            self.provisioning,
            self.provisioning_since,
            self.no_stock,
            self.message,
            tuple(UnitPods(u.unit, u.bound, u.finished, u.terminating) for u in self.units),
            self.timed_out,
            tuple(map(NodePodsMessage.to_model, self.nodes)),
            tuple(map(NodePodsMessage.to_model, self.leaving)),
        )


class WorkloadPodsMessage(Wire):
    """`WorkloadPods`: what the pods of one workload do."""

    workload: Text
    components: dict[str, ComponentPodsMessage] = Field(default_factory=dict)


class InventoryMessage(Wire):
    """`Inventory`: one of a summary, a node class, or the pods of a workload."""

    cluster: Text
    snapshot: SnapshotMessage
    summary: ClusterSummaryMessage | None = None
    node_class: NodeClassMessage | None = None
    pods: WorkloadPodsMessage | None = None

    def to_model(self) -> InventorySummary | ClassInventory | WorkloadPods:
        """Returns the part that is set. Raises RecordError unless there is exactly one."""
        set_parts = (self.summary is not None) + (self.node_class is not None) + (self.pods is not None)
        if set_parts != 1:
            raise RecordError(
                RecordReason.MISSING_FIELD if not set_parts else RecordReason.INVALID_VALUE,
                "",
                f"{set_parts} of summary, nodeClass and pods are set",
                "set exactly one",
            )
        snapshot = self.snapshot.to_model()
        if self.node_class is not None:
            return ClassInventory(self.cluster, snapshot, self.node_class.to_model())
        if self.pods is not None:
            components = tuple(sorted((name, pods.to_model()) for name, pods in self.pods.components.items()))
            return WorkloadPods(self.cluster, self.pods.workload, snapshot, components)
        assert self.summary is not None
        summary = self.summary
        return InventorySummary(
            cluster=self.cluster,
            snapshot=snapshot,
            observed_at=summary.observed_at,
            health=summary.health,
            message=summary.message,
            apis=None if summary.apis is None else frozenset(summary.apis.items),
            namespaces=None if summary.namespaces is None else frozenset(summary.namespaces.items),
            virtual_nodes=tuple(node.to_model() for node in summary.virtual_nodes),
            quotas=tuple(NamespaceQuota(q.namespace, q.bounds, q.hard, q.used) for q in summary.quotas),
            classes=summary.classes,
            pods=summary.pods,
        )


InventoryPart = InventorySummary | ClassInventory | WorkloadPods


def inventory_key(part: InventoryPart) -> str:
    """Returns the Kafka key of a part of a snapshot."""
    if isinstance(part, ClassInventory):
        return class_key(part.cluster, part.node_class.name)
    if isinstance(part, WorkloadPods):
        return pods_key(part.cluster, part.workload)
    return part.cluster


def inventory_object(part: InventoryPart) -> dict[str, Any]:
    """Returns the message as a plain object."""
    snapshot = part.snapshot
    value: dict[str, Any] = {
        "cluster": part.cluster,
        "snapshot": compact({"incarnation": snapshot.incarnation, "epoch": snapshot.epoch, "n": snapshot.n}),
    }
    if isinstance(part, ClassInventory):
        value["nodeClass"] = _class_object(part.node_class)
    elif isinstance(part, WorkloadPods):
        value["pods"] = {
            "workload": part.workload,
            "components": {name: _component_object(pods) for name, pods in part.components},
        }
        if not part.components:
            del value["pods"]["components"]
    else:
        value["summary"] = _summary_object(part)
    return value


def _block_object(block: FreeBlock) -> dict[str, Any]:
    return compact(
        {
            "nodes": block.nodes,
            "free": render_resources(block.free),
            "gpuFree": block.gpu_free,
            "numbers": block.numbers,
        }
    )


def _class_object(node_class: NodeClass) -> dict[str, Any]:
    elastic = node_class.elastic
    value = compact(
        {
            "name": node_class.name,
            "allocatable": render_resources(node_class.allocatable),
            "nodes": node_class.nodes,
            "labels": dict(node_class.labels),
            "taints": [taint_object(taint) for taint in node_class.taints],
            "free": [_block_object(block) for block in node_class.free],
        }
    )
    if elastic is not None:
        value["elastic"] = {
            **compact({"maxNodes": elastic.max_nodes, "stock": elastic.stock}),
            "provisionSeconds": elastic.provision_seconds,
        }
    return value


def _component_object(pods: ComponentPods) -> dict[str, Any]:
    return compact(
        {
            "bound": pods.bound,
            "ready": pods.ready,
            "finished": pods.finished,
            "failed": pods.failed,
            "evicted": pods.evicted,
            "unschedulable": [render_time(since) for since in pods.unschedulable],
            "provisioning": pods.provisioning,
            "provisioningSince": time_or_none(pods.provisioning_since),
            "noStock": pods.no_stock,
            "message": pods.message,
            "units": [
                compact({"unit": u.unit, "bound": u.bound, "finished": u.finished, "terminating": u.terminating})
                for u in pods.units
            ],
            "timedOut": pods.timed_out,
            "nodes": [_node_object(node) for node in pods.nodes],
            "leaving": [_node_object(node) for node in pods.leaving],
        }
    )


def _node_object(node: NodePods) -> dict[str, Any]:
    return compact({"nodeClass": node.node_class, "number": node.number, "pods": node.pods, "unit": node.unit})


def _virtual_object(node: VirtualNode) -> dict[str, Any]:
    value = compact(
        {
            "name": node.name,
            "labels": dict(node.labels),
            "taints": [taint_object(taint) for taint in node.taints],
        }
    )
    if node.stock is not None:
        models = [compact({"gpuModelSeries": item.model, "gpus": item.gpus}) for item in node.stock]
        value["stock"] = compact({"models": models})
    return value


def _summary_object(summary: InventorySummary) -> dict[str, Any]:
    value = compact(
        {
            "health": summary.health.value,
            "message": summary.message,
            "observedAt": time_or_none(summary.observed_at),
            "virtualNodes": [_virtual_object(node) for node in summary.virtual_nodes],
            "classes": summary.classes,
            "pods": summary.pods,
            "quotas": [
                compact(
                    {
                        "namespace": q.namespace,
                        "bounds": q.bounds,
                        "hard": render_resources(q.hard),
                        "used": render_resources(q.used),
                    }
                )
                for q in summary.quotas
            ],
        }
    )
    for name, items in (("apis", summary.apis), ("namespaces", summary.namespaces)):
        if items is not None:
            value[name] = compact({"items": sorted(items)})
    return value
