"""Builds simulated clusters from what Cluster documents say: registration and inventory.

`status` of a document is the state to start from: nodes named `<class>-<i>`, filler pods in kube-system that take what
is not free, node pools with their stock, virtual nodes with theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpufleet.model import quantity
from gpufleet.model.cluster import ClusterSpec, FreeBlock, Inventory, ModelStock, NodeClass, VirtualNode
from gpufleet.model.devices import ALLOCATIONS, WHOLE, Devices, devices_of, free_devices
from gpufleet.model.resources import Resources, render_resources
from gpufleet.model.selectors import Taint
from sim.api.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES
from sim.api.store import Store
from sim.model.api import Controller, Create, Json, Write
from sim.model.autoscaler import Pool, pools_writes
from sim.model.cluster import Behaviour, simulated
from sim.model.controllers.quota import quota_object
from sim.model.drive import Drive
from sim.model.names import (
    CLASS_LABEL,
    SERVERLESS_STOCK,
    SERVERLESS_TOTAL,
    SYSTEM_NAMESPACE,
    VIRTUAL_LABEL,
    VIRTUAL_VALUE,
)

KUBELET_VERSION = "v1.34.0"
FILLER = "sim.gpufleet.io/filler"
# What a virtual node shows; only its stock bounds it.
VIRTUAL_CAPACITY = {"cpu": "1000000", "memory": "1Pi", "pods": "50000", "nvidia.com/gpu": "1000000"}
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
ZONE_LABEL = "topology.kubernetes.io/zone"


@dataclass(slots=True)
class SimulatedCluster:
    """One cluster: its registration, its objects, and what moves them."""

    spec: ClusterSpec
    store: Store
    drive: Drive

    @property
    def name(self) -> str:
        """The cluster's id."""
        return self.spec.name


@dataclass(slots=True)
class SimulatedFleet:
    """Several clusters under one clock, which the caller moves."""

    clusters: dict[str, SimulatedCluster] = field(default_factory=dict)

    def settle(self, now: float) -> None:
        """Does everything that is due at `now`, cluster by cluster in order of their names."""
        for _, cluster in sorted(self.clusters.items()):
            cluster.drive.settle(now)

    def next_wake(self) -> float | None:
        """When something happens by itself (epoch seconds), or None."""
        wakes = [c.drive.next_wake() for c in self.clusters.values()]
        return min((at for at in wakes if at is not None), default=None)

    def run_until(self, now: float) -> None:
        """Lets time pass up to `now`, wake-up by wake-up."""
        wake_at = self.next_wake()
        while wake_at is not None and wake_at < now:
            self.settle(wake_at)
            wake_at = self.next_wake()
        self.settle(now)


def build_cluster(
    spec: ClusterSpec,
    inventory: Inventory,
    *,
    now: float,
    seed: int = 0,
    namespaces: Iterable[str] = (),
    crds: Sequence[Json] = (),
    behaviour: Behaviour | None = None,
    controllers: Sequence[Controller] | None = None,
) -> SimulatedCluster:
    """A cluster in the state that its inventory describes, settled at `now`.

    `namespaces` are created besides those of the inventory; of `crds` those whose kinds the inventory's `apis` names,
    all of them if it names none. Free blocks and their `pods` are kept to; the pods of a full node are not counted.
    Of devices that are shared (`gpuFree`) so much is free as a block says; what is bound later goes by their sums.
    """
    store = Store(spec.name, now=now, seed=seed)
    bounded = {quota.namespace for quota in inventory.quotas} if inventory.namespaces is None else set()
    for namespace in sorted({*namespaces, *(inventory.namespaces or ()), *bounded}):
        if store.find(NAMESPACES, "", namespace) is None:
            document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            store.create(NAMESPACES, document, now=now)
    for crd in crds:
        if is_served(crd, inventory.apis):
            store.create(CUSTOM_RESOURCE_DEFINITIONS, crd, now=now)
    drive = Drive(store, simulated((behaviour or Behaviour()).of(spec)) if controllers is None else controllers)
    drive.apply(cluster_writes(inventory), now)
    pools = [pool_of(spec, node_class) for node_class in inventory.node_classes if node_class.elastic is not None]
    if pools:
        drive.apply(pools_writes(drive.view, pools), now)
    drive.settle(now)
    return SimulatedCluster(spec, store, drive)


def cluster_writes(inventory: Inventory) -> list[Write]:
    """The writes that make the nodes of a cluster, and the pods that fill them."""
    writes: list[Write] = []
    for node_class in inventory.node_classes:
        for index, block in enumerate(blocks_of(node_class)):
            name = f"{node_class.name}-{index}"
            writes.append(Create(class_node(node_class, name)))
            shares = allocations(devices_of(node_class), block)
            writes += [Create(pod) for pod in fillers(name, node_class.allocatable, block, shares)]
    writes += [Create(virtual_node(node)) for node in inventory.virtual_nodes]
    writes += [Create(quota) for quota in quotas_of(inventory)]
    return writes


def quotas_of(inventory: Inventory) -> list[Json]:
    """The ResourceQuotas of the namespaces that there are."""
    there = inventory.namespaces
    return [
        quota_object(quota, f"quota-{index}")
        for index, quota in enumerate(inventory.quotas)
        if there is None or quota.namespace in there
    ]


def is_served(crd: Json, apis: frozenset[str] | None) -> bool:
    """Whether a cluster that serves ``apis`` (None: everything) has a CustomResourceDefinition."""
    spec = crd["spec"]
    return apis is None or any(f"{spec['group']}/{v['name']}/{spec['names']['kind']}" in apis for v in spec["versions"])


def class_node(node_class: NodeClass, name: str) -> Json:
    """A Node object of a class."""
    allocatable = render_resources(node_class.allocatable)
    return _node(name, class_labels(node_class), node_class.taints, allocatable)


def class_labels(node_class: NodeClass) -> dict[str, str]:
    """The labels of every node of a class; one of them names it."""
    return {**dict(node_class.labels), CLASS_LABEL: node_class.name}


def node_taints(taints: Iterable[Taint]) -> list[Json]:
    """Taints as a Node has them."""
    return [
        {"key": t.key, **({"value": t.value} if t.value else {}), "effect": t.effect or "NoSchedule"} for t in taints
    ]


def blocks_of(node_class: NodeClass) -> list[FreeBlock | None]:
    """For each node its free block; None for a full node."""
    listed: list[FreeBlock | None] = [block for block in node_class.free for _ in range(block.nodes)]
    listed = listed[: node_class.nodes]
    return listed + [None] * (node_class.nodes - len(listed))


def _node(name: str, labels: Mapping[str, str], taints: Iterable[Taint], allocatable: Mapping[str, str]) -> Json:
    spec: Json = {}
    listed = node_taints(taints)
    if listed:
        spec["taints"] = listed
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**labels, "kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {
            "capacity": dict(allocatable),
            "allocatable": dict(allocatable),
            "nodeInfo": {"kubeletVersion": KUBELET_VERSION},
        },
    }


def allocations(devices: Devices | None, block: FreeBlock | None) -> dict[str, str]:
    """The annotations of a pod that has of each shared device what is not free."""
    if devices is None or block is None or not block.gpu_free:
        return {}
    found: dict[str, str] = {}
    for annotation, resource in ALLOCATIONS:
        total = dict(devices.shared).get(resource, 0)
        taken = {
            str(device): (WHOLE - left) * total // (WHOLE * devices.count)
            for device, left in enumerate(reversed(free_devices(block, devices.count)))
            if left < WHOLE
        }
        if total and taken:
            found[annotation] = json.dumps({"0": taken})
    return found


def fillers(
    node: str, allocatable: Resources, block: FreeBlock | None, annotations: Mapping[str, str] | None = None
) -> list[Json]:
    """Pods that take what is not free: the first one all of it, the others a place for a pod each.

    ``annotations`` are those of the first.
    """
    free = dict(block.free) if block is not None else {"pods": dict(allocatable).get("pods", 1) - 1}
    used = {name: amount - free.get(name, 0) for name, amount in allocatable if amount > free.get(name, 0)}
    places = used.pop("pods", 0)
    if not used and not places and not annotations:
        return []
    requests = {name: quantity.render(amount, name) for name, amount in sorted(used.items())}
    made = [_filler(node, index, requests if index == 0 else {}) for index in range(max(1, places))]
    if annotations:
        made[0]["metadata"]["annotations"] = dict(annotations)
    return made


def _filler(node: str, index: int, requests: Mapping[str, str]) -> Json:
    container: Json = {"name": "filler", "image": "pause"}
    if requests:
        container["resources"] = {"requests": dict(requests), "limits": dict(requests)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"filler-{node}-{index}",
            "namespace": SYSTEM_NAMESPACE,
            "labels": {FILLER: "true"},
        },
        "spec": {
            "nodeName": node,
            "containers": [container],
            "tolerations": [{"operator": "Exists"}],
        },
    }


def virtual_node(node: VirtualNode) -> Json:
    """The Node object of a virtual kubelet."""
    labels = {**dict(node.labels), VIRTUAL_LABEL: VIRTUAL_VALUE}
    made = _node(node.name, labels, node.taints, VIRTUAL_CAPACITY)
    if node.stock is not None:
        stock = json.dumps([{"gpuModelSeries": item.model, "gpus": item.gpus} for item in _sorted_stock(node)])
        made["metadata"]["annotations"] = {SERVERLESS_TOTAL: stock, SERVERLESS_STOCK: stock}
    return made


def _sorted_stock(node: VirtualNode) -> list[ModelStock]:
    return sorted(node.stock or (), key=lambda item: item.model)


def pool_of(spec: ClusterSpec, node_class: NodeClass) -> Pool:
    """The node pool of a class that can grow."""
    elastic = node_class.elastic
    assert elastic is not None
    labels = class_labels(node_class)
    return Pool(
        name=node_class.name,
        labels=labels,
        taints=node_taints(node_class.taints),
        allocatable=render_resources(node_class.allocatable),
        max_nodes=elastic.max_nodes,
        stock=elastic.stock,
        provision_seconds=elastic.provision_seconds,
        instance_type=labels.get(INSTANCE_TYPE, node_class.name),
        zone=labels.get(ZONE_LABEL) or (spec.zones[0] if spec.zones else spec.region or "zone-a"),
    )
