"""A fleet in steady state for the scheduler's core: every arrival is matched by a finish, and nothing does I/O.

Clusters of 100 nodes of 8 GPUs in four classes; Deployments of 16 replicas with 1 GPU, 8 CPU and 32Gi each, divided by
available replicas, in 20 shapes that differ in the node classes they admit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from cProfile import Profile
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from gpufleet.model.cluster import ClusterSpec, FreeBlock, Inventory, NodeClass, SnapshotId
from gpufleet.model.kinds import interpret
from gpufleet.model.manifest import packed
from gpufleet.model.placement import AssignmentColumns, Observation, ObservedPhase, WorkloadHealth
from gpufleet.model.policy import ClusterAffinity, DivisionType, PropagationPolicy, ResourceSelector
from gpufleet.model.policy import Placement as PlacementRule
from gpufleet.model.resources import resources
from gpufleet.model.workload import Workload
from gpufleet.wire.records import dump_assignment, dump_assignments, dump_placement
from services.scheduler.core import State, decide
from services.scheduler.core.events import (
    ClusterRegistered,
    Event,
    InventoryChanged,
    Observed,
    PolicyChanged,
    Started,
    WorkloadDeleted,
    WorkloadSubmitted,
)
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.settings import Settings

NODES = 100
GPUS_PER_NODE = 8
REPLICAS = 16
SHAPES = 20
_GPU = "nvidia.com/gpu"
_CLASSES = ("a10", "a100", "h20", "l20")
NODE = {"cpu": 96_000, "memory": 2**40, "pods": 110, _GPU: GPUS_PER_NODE}
NOW = 1_000_000.0
_STEP = 0.001  # seconds from one step to the next: no two decisions are made at the same time


def cluster_names(count: int) -> list[str]:
    """Returns the names of the clusters."""
    return [f"c-{index:04d}" for index in range(count)]


def inventory(cluster: str, *, full: bool = False) -> Inventory:
    """Returns a snapshot of a cluster whose nodes are empty, or full."""
    nodes = NODES // len(_CLASSES)
    free = () if full else (FreeBlock(nodes, resources(NODE)),)
    classes = tuple(NodeClass(name, resources(NODE), nodes, (("gpu", name),), free=free) for name in _CLASSES)
    return Inventory(cluster, SnapshotId("uid-" + cluster, 1, 1), NOW, node_classes=classes)


def policy(groups: Iterable[Iterable[str]] = ()) -> PropagationPolicy:
    """Returns a policy that divides every Deployment by available replicas over groups of clusters, or over all."""
    affinities = tuple(ClusterAffinity(f"group-{i}", tuple(names)) for i, names in enumerate(groups))
    return PropagationPolicy(
        name="all",
        namespace="bench",
        selectors=(ResourceSelector("apps/v1", "Deployment"),),
        placement=PlacementRule(groups=affinities, prioritized=bool(affinities), division=DivisionType.DYNAMIC),
        digest="all",
    )


def manifest(name: str, shape: int, replicas: int = REPLICAS) -> dict[str, Any]:
    """Returns a Deployment; the shape says which node classes it admits."""
    subsets = [subset for size in (1, 2, 3, 4) for subset in combinations(_CLASSES, size)]
    classes = subsets[shape % len(subsets)]
    spec: dict[str, Any] = {
        "containers": [
            {
                "name": "main",
                "image": "registry.example/team/server:1.0.0",
                "args": ["--model", "/models/chat", "--port", "8080"],
                "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "CACHE", "value": "/cache"}],
                "ports": [{"containerPort": 8080, "name": "http"}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5},
                "resources": {"requests": {"cpu": "8", "memory": "32Gi"}, "limits": {_GPU: "1"}},
                "volumeMounts": [{"mountPath": "/cache", "name": "cache"}],
            }
        ],
        "volumes": [{"emptyDir": {}, "name": "cache"}],
    }
    expression = {"key": "gpu", "operator": "In", "values": list(classes)}
    term = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}
    if shape >= len(subsets):
        spec["tolerations"] = [{"key": "dedicated", "operator": "Equal", "value": "bench", "effect": "NoSchedule"}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "bench", "labels": {"app": name, "team": "bench"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    }


def workload(number: int, replicas: int = REPLICAS) -> Workload:
    """Returns the workload of a number; 20 shapes in turn."""
    made = manifest(f"serve-{number:06d}", number % SHAPES, replicas)
    uid = f"00000000-0000-4000-8000-{number:012d}"
    return packed(interpret(made, uid=uid, version=number + 1, arrival=number + 1))


def fleet(count: int, groups: Iterable[Iterable[str]] = ()) -> list[Event]:
    """Returns the events that make a fleet of empty clusters known, with its policy."""
    events: list[Event] = [Started(1, "log"), PolicyChanged(policy(groups))]
    for name in cluster_names(count):
        events += [ClusterRegistered(ClusterSpec(name, provider="idc")), InventoryChanged(inventory(name))]
    return events


def encoded(out: Outputs) -> int:
    """Encodes the records that outputs mean and returns their bytes."""
    total = 0
    for placed in out.placements:
        if placed.placement is not None:
            total += len(dump_placement(placed.placement))
    for assigned in out.written():
        if isinstance(assigned, AssignmentColumns):
            total += sum(map(len, dump_assignments(assigned)))
        elif assigned.assignment is not None:
            total += len(dump_assignment(assigned.assignment))
    return total


@dataclass
class Steady:
    """A fleet that is kept half full. ``seconds`` are the times of the steps, ``size`` the bytes written in them."""

    clusters: int
    groups: tuple[tuple[str, ...], ...] = ()
    replicas: int = REPLICAS
    state: State = field(init=False)
    live: deque[str] = field(default_factory=deque)
    finished: list[str] = field(default_factory=list)
    number: int = 0
    seconds: list[float] = field(default_factory=list)
    size: int = 0
    profile: Profile | None = None
    now: float = NOW

    def __post_init__(self) -> None:
        self.state = State(Settings())
        decide(self.state, fleet(self.clusters, self.groups), NOW)

    def arrival(self) -> Event:
        """Returns the next submission."""
        made = workload(self.number, self.replicas)
        self.number += 1
        self.live.append(made.key)
        return WorkloadSubmitted(made)

    def finish(self) -> list[Event]:
        """Returns what the clusters report when the oldest workload ends."""
        key = self.live.popleft()
        self.finished.append(key)
        return list(self.reports(key, ObservedPhase.APPLIED, WorkloadHealth.SUCCEEDED))

    def reports(self, key: str, phase: ObservedPhase, health: WorkloadHealth) -> Iterable[Event]:
        """Yields what every cluster that has the workload reports of it."""
        for cluster, known in sorted(self.state.entries[key].assignments.items()):
            yield Observed(Observation(key, cluster, known.version, phase, "uid-" + cluster, health=health, ready=1))

    def fill(self, pods: int) -> None:
        """Places workloads until so many pods have a place; not timed."""
        while pods > 0:
            events = [self.arrival() for _ in range(min(100, -(-pods // self.replicas)))]
            decide(self.state, events, NOW)
            pods -= len(events) * self.replicas

    def run(self, steps: int, batch: int = 1) -> None:
        """Takes steps of ``batch`` arrivals and as many finishes each, and times the decisions with their bytes."""
        for step in range(steps):
            events: list[Event] = []
            for _ in range(batch):
                events += self.finish()
            events += [self.arrival() for _ in range(batch)]
            if self.profile is not None:
                self.profile.enable()
            self.now += _STEP
            begun = time.perf_counter()
            out = decide(self.state, events, self.now)
            self.size += encoded(out)
            self.seconds.append(time.perf_counter() - begun)
            if self.profile is not None:
                self.profile.disable()
            placed = sum(w.placement is not None and w.placement.placed == self.replicas for w in out.placements)
            if placed != 2 * batch:  # the arrivals, and the finished ones, which keep saying where they were
                raise RuntimeError(f"{placed} of {2 * batch} decisions placed all of a workload")
            if step % 100 == 99:
                self.forget()

    def forget(self) -> None:
        """Deletes what has finished, as its producer would; not timed."""
        decide(self.state, [WorkloadDeleted(key) for key in self.finished], self.now)
        gone = [e for key in self.finished for e in self.reports(key, ObservedPhase.GONE, WorkloadHealth.UNKNOWN)]
        decide(self.state, gone, self.now)
        left = [key for key in self.finished if key in self.state.entries and self.state.entries[key].placement]
        if left:
            raise RuntimeError(f"{len(left)} workloads were not removed")
        self.finished.clear()


def half_full(clusters: int, *, prioritized: bool = False) -> Steady:
    """Returns a fleet that is half full; with three priority groups the first is full and overflows."""
    names = cluster_names(clusters)
    groups: Mapping[bool, tuple[tuple[str, ...], ...]] = {
        False: (),
        True: (
            tuple(names[: clusters // 5]),
            tuple(names[clusters // 5 : 3 * clusters // 5]),
            tuple(names[3 * clusters // 5 :]),
        ),
    }
    steady = Steady(clusters, groups[prioritized])
    steady.fill(clusters * NODES * GPUS_PER_NODE // 2)
    return steady
