"""Where workloads are at the start: their pods are put on nodes beside what the document says is free.

`free` excludes the bound pods of the Placement documents, so they take what it leaves of the nodes. Where a document
leaves too little, they get further nodes, so that what is free stays as it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpufleet.model.cluster import NodeClass
from gpufleet.model.names import COMPONENT_LABEL
from sim.fleet import class_node, pool_of
from sim.model.api import Create, Json
from sim.model.autoscaler import pools_writes
from sim.model.objects import NODE, labels_of, node_of
from sim.model.scheduler.needs import Needs, needs_of
from sim.model.scheduler.nodes import NodeState, is_virtual
from sim.scenario.change import Shaped, own_pods

# Pods still to be bound: by workload and component.
Wanted = dict[str, dict[str, int]]


@dataclass(slots=True)
class _Seat:
    """A node: what the scenario's pods may take of it so that the rest stays as the document says."""

    state: NodeState
    node_class: NodeClass | None  # None: a virtual node
    hole: dict[str, int]
    left: dict[str, int]  # of what is allocatable

    def takes(self, needs: Needs) -> bool:
        """Whether a pod fits. What decides are its devices, or cpu and memory if it asks for none."""
        asked = {name: amount for name, amount in needs.shape.requests if name != "pods"}
        if self.state.refuses(needs) or any(self.left.get(name, 0) < amount for name, amount in asked.items()):
            return False
        devices = [name for name in asked if "/" in name]
        if devices:
            return all(self.hole.get(name, 0) >= asked[name] for name in devices)
        return not asked or any(self.hole.get(name, 0) >= amount for name, amount in asked.items())

    def take(self, needs: Needs) -> None:
        """Takes a pod's room."""
        for name, amount in needs.shape.requests:
            self.hole[name] = self.hole.get(name, 0) - amount
            self.left[name] = self.left.get(name, 0) - amount


@dataclass(slots=True)
class Seating:
    """Binds the pods of one cluster that has no scheduler yet."""

    shaped: Shaped
    wanted: Wanted
    warnings: list[str] = field(default_factory=list)
    _seats: dict[str, _Seat] = field(default_factory=dict)
    _added: dict[str, str] = field(default_factory=dict)  # further nodes: their class

    def begin(self) -> None:
        """Measures the nodes. None of them has fillers yet."""
        for node in self.shaped.view.list(*NODE):
            name = node["metadata"]["name"]
            state = NodeState(name)
            state.read(node)
            if is_virtual(node):
                self._seats[name] = _Seat(state, None, dict(state.allocatable), dict(state.allocatable))
        for node_class in self.shaped.inventory.node_classes:
            for name, block in self.shaped.blocks[node_class.name].items():
                free = dict(block.free) if block is not None else {}
                whole = dict(node_class.allocatable)
                hole = {resource: amount - free.get(resource, 0) for resource, amount in whole.items()}
                self._sit(name, node_class, hole)

    def _sit(self, name: str, node_class: NodeClass, hole: Mapping[str, int]) -> _Seat:
        state = NodeState(name)
        state.read(class_node(node_class, name))
        seat = self._seats[name] = _Seat(state, node_class, dict(hole), dict(node_class.allocatable))
        return seat

    def bind(self, now: float) -> bool:
        """Binds the pods that are there and wanted; whether there were any."""
        store = self.shaped.cluster.store
        any_bound = False
        for workload, components in sorted(self.wanted.items()):
            for pod in own_pods(self.shaped.view, workload):
                component = labels_of(pod).get(COMPONENT_LABEL, "")
                if node_of(pod) or components.get(component, 0) <= 0:
                    continue
                components[component] -= 1
                seat = self._find(workload, pod, now)
                if seat is not None:
                    seat.take(needs_of(pod))
                    metadata = pod["metadata"]
                    store.bind(metadata["namespace"], metadata["name"], seat.state.name, now=now)
                    any_bound = True
        return any_bound

    def _find(self, workload: str, pod: Json, now: float) -> _Seat | None:
        needs = needs_of(pod)
        found = [seat for seat in self._seats.values() if seat.takes(needs)]
        if found:
            return min(found, key=lambda s: (s.node_class is None, sum(s.hole.values()), s.state.order))
        cluster = self.shaped.inventory.cluster
        for node_class in self.shaped.inventory.node_classes:
            name = self._further(node_class)
            seat = self._sit(name, node_class, dict(node_class.allocatable))
            if seat.takes(needs):
                self.shaped.cluster.drive.apply([Create(class_node(node_class, name))], now)
                self._added[name] = node_class.name
                self.warnings.append(
                    f"{cluster}: what is free of {node_class.name} leaves no room for a bound pod of {workload}; "
                    f"it gets a further node, {name}"
                )
                return seat
            del self._seats[name]
        self.warnings.append(f"{cluster}: no node class takes a bound pod of {workload}; it is left pending")
        return None

    def _further(self, node_class: NodeClass) -> str:
        index = node_class.nodes
        while f"{node_class.name}-{index}" in self._seats:
            index += 1
        return f"{node_class.name}-{index}"

    def end(self, now: float) -> None:
        """Fills the nodes as the document says, and says what can be created."""
        shaped, drive = self.shaped, self.shaped.cluster.drive
        for node_class in shaped.inventory.node_classes:
            for name, block in shaped.blocks[node_class.name].items():
                drive.apply(shaped.fill(name, node_class.allocatable, block), now)
            for name, class_name in self._added.items():
                if class_name == node_class.name:
                    drive.apply(shaped.fill(name, node_class.allocatable, None), now)
        for node in shaped.inventory.virtual_nodes:
            drive.apply([shaped.restock(node)], now)
        pools = [pool_of(shaped.cluster.spec, c) for c in shaped.inventory.node_classes if c.elastic is not None]
        if pools:
            drive.apply(pools_writes(shaped.view, pools), now)
        drive.settle(now)
