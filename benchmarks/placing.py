"""gpufleet's own decisions on the openb trace: the scheduler's core, given what inventory would publish."""

from __future__ import annotations

from collections import Counter
from functools import cache

from benchmarks.openb import State as NodeState
from benchmarks.openb import trace
from benchmarks.quality import Fleet
from gpufleet.model.cluster import (
    ClusterSpec,
    ComponentPods,
    FreeBlock,
    Inventory,
    NodeClass,
    Scoring,
    SnapshotId,
    WorkloadPods,
)
from gpufleet.model.policy import DivisionType, PropagationPolicy, ResourceSelector
from gpufleet.model.policy import Placement as PlacementRule
from gpufleet.model.resources import Labels, resources
from gpufleet.model.workload import Component, Division, PodShape, Workload
from services.scheduler.core import State, decide
from services.scheduler.core.events import (
    ClusterRegistered,
    Event,
    InventoryChanged,
    PodsChanged,
    PolicyChanged,
    Started,
    WorkloadDeleted,
    WorkloadSubmitted,
)

_GPU, _SHARE = "nvidia.com/gpu", "aliyun.com/gpu-core.percentage"
_NOW = 1_000_000.0
_MANIFEST = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "task", "namespace": "openb"}, "spec": {}}


@cache
def _shape(index: int) -> PodShape:
    t = trace()
    amounts = {"pods": 1, "cpu": int(t.task_cpu[index]), "memory": int(t.task_memory[index]) << 20}
    if 0 < t.thousandths[index] < 1000:
        amounts[_SHARE] = int(t.thousandths[index]) // 10
    elif t.count[index]:
        amounts[_GPU] = int(t.count[index])
    return PodShape(resources(amounts))


@cache
def _block(state: NodeState, nodes: int) -> FreeBlock:
    cpu, memory, devices = state
    free = {"pods": 110, "cpu": cpu, "memory": memory << 20, _GPU: devices.count(1000), _SHARE: sum(devices) // 10}
    return FreeBlock(nodes, resources(free), devices)


# What operators say of their clusters' schedulers.
_SCORINGS = {"default": Scoring(), "packing": Scoring(True, (("cpu", 1), ("memory", 1), (_SHARE, 5)))}


def _labels(number: int) -> Labels:
    """Returns what the nodes of a class are called: their instance type, as clouds do."""
    return (("node.kubernetes.io/instance-type", f"type-{number}"),)


class _Published:
    """What inventory publishes of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._blocks: dict[int, Counter[NodeState]] = {}
        for node, unit in enumerate(fleet.unit.tolist()):
            self._blocks.setdefault(unit, Counter())[fleet.states[node]] += 1
        self._nodes = {unit: blocks.total() for unit, blocks in self._blocks.items()}
        self._classes: dict[int, dict[int, NodeClass]] = {}
        for unit in sorted(self._blocks):
            self._classes.setdefault(unit // len(fleet.classes), {})[unit] = self._class(unit)

    def _class(self, unit: int) -> NodeClass:
        number = unit % len(self._fleet.classes)
        _, gpus, cpu, memory = self._fleet.classes[number]
        whole = {"pods": 110, "cpu": cpu, "memory": memory << 20, _GPU: gpus, _SHARE: 100 * gpus}
        free = tuple(_block(state, nodes) for state, nodes in self._blocks[unit].items())
        return NodeClass(str(number), resources(whole), self._nodes[unit], _labels(number), free=free)

    def moved(self, node: int, before: NodeState) -> None:
        """Notes that a node is in another state than before."""
        unit = int(self._fleet.unit[node])
        blocks = self._blocks[unit]
        blocks[before] -= 1
        if not blocks[before]:
            del blocks[before]
        blocks[self._fleet.states[node]] += 1
        self._classes[unit // len(self._fleet.classes)][unit] = self._class(unit)

    def inventory(self, cluster: int, number: int) -> Event:
        """Returns a cluster's snapshot."""
        classes = tuple(self._classes[cluster].values())
        return InventoryChanged(Inventory(str(cluster), SnapshotId("uid", 1, number), _NOW, node_classes=classes))


def ours(fleet_name: str, binder: str, seed: int, *, preferred: bool) -> float:
    """Returns the GPUs allocated, in percent. What does not fit when it arrives is withdrawn."""
    fleet = Fleet(fleet_name, binder, seed)
    published = _Published(fleet)
    state = State()
    policy = PropagationPolicy(
        name="all",
        namespace="openb",
        selectors=(ResourceSelector("batch/v1", "Job"),),
        placement=PlacementRule(division=DivisionType.AGGREGATED),
        prefer_node_class=preferred,
        digest="all",
    )
    events: list[Event] = [Started(1, "log"), PolicyChanged(policy)]
    for cluster in range(int(fleet.cluster.max()) + 1):
        events += [
            ClusterRegistered(ClusterSpec(str(cluster), scoring_strategy=_SCORINGS[binder])),
            published.inventory(cluster, 1),
        ]
    for number, shape in enumerate(fleet.arrivals.tolist(), start=2):
        task = Workload(
            key=f"openb/Job/task-{number}",
            api_version="batch/v1",
            kind="Job",
            namespace="openb",
            name=f"task-{number}",
            components=(Component("main", 1, _shape(shape)),),
            division=Division.WHOLE,
            job=True,
            uid=str(number),
            version=number,
            arrival=number,
            digest=str(number),
            manifest=_MANIFEST,
        )
        decide(state, [*events, WorkloadSubmitted(task)], _NOW)
        placement = state.entries[task.key].placement
        if placement is None or not placement.shares:
            events = [WorkloadDeleted(task.key)]
            continue
        share = placement.shares[0]
        cluster = int(share.cluster)
        nodes = fleet.cluster == cluster
        if preferred:
            nodes = fleet.unit == cluster * len(fleet.classes) + int(share.slots[0].node_class)
        before = list(fleet.states)
        node = fleet.bind(shape, nodes)
        published.moved(node, before[node])
        pods = (("main", ComponentPods(bound=1)),)
        events = [
            published.inventory(cluster, number),
            PodsChanged(WorkloadPods(share.cluster, task.key, SnapshotId("uid", 1, number), pods)),
        ]
    return fleet.share
