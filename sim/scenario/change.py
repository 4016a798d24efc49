"""Making a simulated cluster what its document says, at the start and at every change of the document.

A document says what others take of a node (`free`) apart from the workloads of the scenario. So each node has fillers
for the rest: what is allocatable, less what is free, less what the scenario's own pods take there at that moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpufleet.model.cluster import FreeBlock, Inventory, ModelStock, NodeClass, VirtualNode
from gpufleet.model.names import WORKLOAD_ANNOTATION
from gpufleet.model.policy import PriorityClass
from gpufleet.model.resources import Resources, resources
from sim.api.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PRIORITY_CLASSES
from sim.api.store import Store
from sim.fleet import (
    FILLER,
    SimulatedCluster,
    blocks_of,
    class_labels,
    class_node,
    fillers,
    is_served,
    node_taints,
    pool_of,
    quotas_of,
    virtual_node,
)
from sim.model.api import Create, Delete, Json, Patch, Ref, View, Write, ref_of
from sim.model.autoscaler import Pool, pools_writes, read_pools
from sim.model.controllers.quota import RESOURCE_QUOTA
from sim.model.names import CLASS_LABEL, NODE_POOL, SERVERLESS_STOCK, SERVERLESS_TOTAL
from sim.model.objects import NODE, annotations_of, deleting, finished, labels_of
from sim.model.scheduler.needs import needs_of
from sim.model.scheduler.nodes import natural

Blocks = dict[str, FreeBlock | None]


@dataclass(slots=True)
class Shaped:
    """A cluster as its document has it: which free block each node stands for (None: a full node), by class."""

    cluster: SimulatedCluster
    inventory: Inventory
    blocks: dict[str, Blocks] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node_class in self.inventory.node_classes:
            listed = _singles(node_class)
            self.blocks[node_class.name] = {f"{node_class.name}-{i}": block for i, block in enumerate(listed)}

    @property
    def view(self) -> View:
        """The cluster's objects."""
        return self.cluster.drive.view

    def change(self, after: Inventory, crds: Sequence[Json], now: float) -> None:
        """Brings the cluster from its document so far to a new one. Devices that are shared are not simulated."""
        before, self.inventory = self.inventory, after
        drive = self.cluster.drive
        self._serve(before, after, crds, now)
        drive.apply(self._namespaces(before, after), now)
        old = {c.name: c for c in before.node_classes}
        new = {c.name: c for c in after.node_classes}
        for name in sorted(old.keys() - new.keys()):
            drive.apply([Delete(ref_of(node)) for node in self._nodes(name)], now)
            del self.blocks[name]
        for name in sorted(new):
            if new[name] != old.get(name):
                drive.apply(self._change_class(old.get(name), new[name]), now)
        pools = self._pools(old, new)
        if pools is not None:
            drive.apply(pools_writes(self.view, pools), now)
        drive.apply(self._virtual(before.virtual_nodes, after.virtual_nodes), now)
        drive.apply(self._quotas(before, after), now)

    # -- what the API serves -------------------------------------------------------------------------------------

    def _serve(self, before: Inventory, after: Inventory, crds: Sequence[Json], now: float) -> None:
        store = self.cluster.store
        if before.apis == after.apis:
            return
        for crd in crds:
            name = crd["metadata"]["name"]
            served = is_served(crd, after.apis)
            there = store.find(CUSTOM_RESOURCE_DEFINITIONS, "", name) is not None
            if served and not there:
                store.create(CUSTOM_RESOURCE_DEFINITIONS, crd, now=now)
            elif there and not served:
                store.delete(CUSTOM_RESOURCE_DEFINITIONS, "", name, now=now)

    def _namespaces(self, before: Inventory, after: Inventory) -> list[Write]:
        wanted = after.namespaces or frozenset()
        missing = [name for name in sorted(wanted) if self.cluster.store.find(NAMESPACES, "", name) is None]
        writes: list[Write] = [Create(namespace(name)) for name in missing]
        if after.namespaces is not None and before.namespaces is not None:
            writes += [Delete(Ref("v1", "Namespace", "", name)) for name in sorted(before.namespaces - wanted)]
        return writes

    def _quotas(self, before: Inventory, after: Inventory) -> list[Write]:
        if (before.quotas, before.namespaces) == (after.quotas, after.namespaces):
            return []
        names = {quota.namespace for quota in after.quotas} if after.namespaces is None else set()
        missing = [name for name in sorted(names) if self.cluster.store.find(NAMESPACES, "", name) is None]
        return [
            *(Create(namespace(name)) for name in missing),
            *(Delete(ref_of(quota)) for quota in self.view.list(*RESOURCE_QUOTA)),
            *(Create(quota) for quota in quotas_of(after)),
        ]

    # -- nodes ---------------------------------------------------------------------------------------------------

    def _nodes(self, name: str, *, created: bool | None = None) -> list[Json]:
        """The nodes of a class in natural order; ``created`` picks those of the autoscaler, or the others."""
        found = self.view.list(*NODE, labels={CLASS_LABEL: name})
        mine = [n for n in found if created is None or (NODE_POOL in annotations_of(n)) is created]
        return sorted(mine, key=lambda node: natural(node["metadata"]["name"]))

    def _change_class(self, old: NodeClass | None, new: NodeClass) -> list[Write]:
        writes: list[Write] = []
        if old is not None and (old.labels, old.taints, old.allocatable) != (new.labels, new.taints, new.allocatable):
            for node in self._nodes(new.name):
                writes += _reshape(node, old, new)
        known = self.blocks.get(new.name, {})
        kept, fresh = _unchanged(known, _singles(new))
        loose = sorted(known.keys() - kept.keys(), key=natural)
        names = [*loose, *self._new_names(new.name, len(fresh) - len(loose))]
        for name in loose[len(fresh) :]:
            writes.append(Delete(Ref(*NODE, "", name)))
        writes += [Create(class_node(new, name)) for name in names[len(loose) :]]
        paired = self._pair(new, names[: len(fresh)], fresh)
        for name, block in sorted(paired.items()):
            writes += self.fill(name, new.allocatable, block)
        if old is not None and old.allocatable != new.allocatable:
            for name, block in sorted(kept.items()):
                writes += self.fill(name, new.allocatable, block)
        self.blocks[new.name] = {**kept, **paired}
        return writes

    def _new_names(self, name: str, count: int) -> list[str]:
        taken = {node["metadata"]["name"] for node in self.view.list(*NODE)}
        names: list[str] = []
        index = 0
        while len(names) < count:
            if f"{name}-{index}" not in taken:
                names.append(f"{name}-{index}")
            index += 1
        return names

    def _pair(self, node_class: NodeClass, names: Sequence[str], blocks: Sequence[FreeBlock | None]) -> Blocks:
        """Which node gets which block: what is fullest by the scenario's pods is fullest in the document."""
        shape = [name for name, _ in node_class.allocatable if name != "pods"]
        order = sorted(shape, key=lambda name: (not name.endswith("/gpu"), name))

        def used(name: str) -> list[int]:
            own = dict(self.own(name))
            return [-own.get(resource, 0) for resource in order]

        def free(block: FreeBlock | None) -> list[int]:
            left = dict(block.free) if block is not None else {}
            return [left.get(resource, 0) for resource in order]

        by_use = sorted(names, key=lambda name: (used(name), natural(name)))
        if all(used(name) == used(names[0]) for name in names):
            return dict(zip(names, blocks, strict=True))  # nothing to tell them apart: in the document's order
        return dict(zip(by_use, sorted(blocks, key=free), strict=True))

    def own(self, node: str) -> Resources:
        """What the scenario's pods take of a node."""
        total: dict[str, int] = {}
        for pod in self.view.pods_on(node):
            if FILLER not in labels_of(pod) and not finished(pod):
                for name, amount in needs_of(pod).shape.requests:
                    total[name] = total.get(name, 0) + amount
        return resources(total)

    def fill(self, node: str, allocatable: Resources, block: FreeBlock | None) -> list[Write]:
        """Replaces a node's fillers, so that a block is free beside the scenario's own pods, as far as possible."""
        writes: list[Write] = [
            Delete(ref_of(pod), grace_seconds=0) for pod in self.view.pods_on(node) if FILLER in labels_of(pod)
        ]
        own = dict(self.own(node))
        whole = dict(allocatable)
        free = dict(block.free) if block is not None else {"pods": whole.get("pods", 1) - 1}
        left = {name: min(amount, free.get(name, 0) + own.get(name, 0)) for name, amount in whole.items()}
        return [*writes, *(Create(pod) for pod in fillers(node, allocatable, FreeBlock(1, resources(left))))]

    # -- what can be created -------------------------------------------------------------------------------------

    def _pools(self, old: Mapping[str, NodeClass], new: Mapping[str, NodeClass]) -> list[Pool] | None:
        """The node pools, or None if nothing about them has changed.

        In a document stock and maxNodes are what can be had now, so nodes on their way have to come out of them.
        """
        if old == new:
            return None
        known = {pool.name: pool for pool in read_pools(self.view)}
        pools = []
        for name, node_class in sorted(new.items()):
            if node_class.elastic is None:
                continue
            pool = pool_of(self.cluster.spec, node_class)
            before = old.get(name)
            if before is not None and before.elastic == node_class.elastic and name in known:
                pool = replace(pool, stock=known[name].stock, max_nodes=known[name].max_nodes)
            else:
                existing = len(self._nodes(name, created=True))
                pool = replace(pool, stock=pool.stock + existing, max_nodes=pool.max_nodes + existing)
            pools.append(pool)
        return pools if pools or known else None

    # -- virtual nodes -------------------------------------------------------------------------------------------

    def _virtual(self, before: Iterable[VirtualNode], after: Iterable[VirtualNode]) -> list[Write]:
        old, new = {n.name: n for n in before}, {n.name: n for n in after}
        writes: list[Write] = [Delete(Ref(*NODE, "", name)) for name in sorted(old.keys() - new.keys())]
        for name in sorted(new):
            known = old.get(name)
            if known is None:
                writes.append(Create(virtual_node(new[name])))
                continue
            wanted = virtual_node(new[name])
            if (known.labels, known.taints) != (new[name].labels, new[name].taints):
                writes.append(_relabel(name, dict(known.labels), wanted["metadata"]["labels"], wanted["spec"]))
            if known.stock != new[name].stock:
                writes.append(self.restock(new[name]))
        return writes

    def restock(self, node: VirtualNode) -> Write:
        """The write after which a virtual node can still start what its document says, beside what runs there."""
        notes: dict[str, str | None] = {SERVERLESS_TOTAL: None, SERVERLESS_STOCK: None}
        if node.stock is not None:
            started: dict[str, int] = {}
            for pod in self.view.pods_on(node.name):
                needs = needs_of(pod)
                if needs.gpus and not finished(pod) and (pod.get("status") or {}).get("startTime"):
                    started[needs.model] = started.get(needs.model, 0) + needs.gpus
            left = {item.model: item.gpus for item in node.stock}
            total = {m: left.get(m, 0) + started.get(m, 0) for m in {*left, *started}}
            notes = {SERVERLESS_TOTAL: _stock_text(total), SERVERLESS_STOCK: _stock_text(left)}
        return Patch(Ref(*NODE, "", node.name), {"metadata": {"annotations": notes}})


def namespace(name: str) -> Json:
    """A Namespace object."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def provide_priority_classes(store: Store, ranks: Iterable[PriorityClass], now: float) -> None:
    """Has a cluster have the fleet's PriorityClasses, which its API asks pods for that name one."""
    for rank in ranks:
        wanted = {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": rank.name},
            "value": rank.value,
            "globalDefault": rank.global_default,
            "preemptionPolicy": "PreemptLowerPriority" if rank.preempts else "Never",
        }
        known = store.find(PRIORITY_CLASSES, "", rank.name)
        if known is not None and all(known.get(name) == wanted[name] for name in wanted if name != "metadata"):
            continue
        if known is not None:  # its value cannot be changed
            store.delete(PRIORITY_CLASSES, "", rank.name, now=now)
        store.create(PRIORITY_CLASSES, wanted, now=now)


def own_pods(view: View, workload: str) -> list[Json]:
    """The pods of a workload that are neither finished nor being deleted."""
    found = view.list("v1", "Pod", workload.partition("/")[0])
    return [
        pod
        for pod in found
        if annotations_of(pod).get(WORKLOAD_ANNOTATION) == workload and not finished(pod) and not deleting(pod)
    ]


def _singles(node_class: NodeClass) -> list[FreeBlock | None]:
    """The free block of each node; None for a full node."""
    return [None if block is None else replace(block, nodes=1) for block in blocks_of(node_class)]


def _unchanged(
    known: Mapping[str, FreeBlock | None], listed: Sequence[FreeBlock | None]
) -> tuple[Blocks, list[FreeBlock | None]]:
    """The nodes whose block is still listed, and the blocks that no node stands for."""
    kept: Blocks = {}
    rest = list(listed)
    for name in sorted(known, key=natural):
        if known[name] in rest:
            rest.remove(known[name])
            kept[name] = known[name]
    return kept, rest


def _reshape(node: Json, old: NodeClass, new: NodeClass) -> list[Write]:
    """The writes that give a node the labels, taints and amounts of its class."""
    name = node["metadata"]["name"]
    made = class_node(new, name)
    writes: list[Write] = [
        _relabel(name, class_labels(old), made["metadata"]["labels"], {"taints": node_taints(new.taints)})
    ]
    if old.allocatable != new.allocatable:
        status = {
            key: {**dict.fromkeys(dict(old.allocatable)), **made["status"][key]} for key in ("capacity", "allocatable")
        }
        writes.append(Patch(Ref(*NODE, "", name), {"status": status}, "status"))
    return writes


def _relabel(name: str, old: Mapping[str, str], new: Mapping[str, str], spec: Json) -> Write:
    labels = {**dict.fromkeys(old.keys() - new.keys()), **new}
    return Patch(Ref(*NODE, "", name), {"metadata": {"labels": labels}, "spec": {"taints": spec.get("taints") or None}})


def _stock_text(stock: Mapping[str, int]) -> str:
    left = [ModelStock(model, gpus) for model, gpus in sorted(stock.items())]
    return json.dumps([{"gpuModelSeries": item.model, "gpus": item.gpus} for item in left])
