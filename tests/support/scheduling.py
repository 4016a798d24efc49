"""A scheduler core with topics around it, driven step by step: builders for its inputs, and a log to restart from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gpufleet.model.cluster import (
    ClusterSpec,
    ComponentPods,
    ElasticStock,
    FreeBlock,
    Health,
    Inventory,
    NodeClass,
    SnapshotId,
    VirtualNode,
    WorkloadPods,
)
from gpufleet.model.placement import Assignment, Observation, ObservedPhase, Placement, Version, WorkloadHealth
from gpufleet.model.policy import ClusterAffinity, DivisionType, PropagationPolicy, ResourceSelector
from gpufleet.model.policy import Placement as PlacementRule
from gpufleet.model.resources import labels, resources
from gpufleet.model.workload import Component, Division, PodShape, Workload
from services.scheduler.core.decide import decide
from services.scheduler.core.events import (
    AssignmentRead,
    ClusterRegistered,
    Event,
    InventoryChanged,
    Observed,
    PlacementRead,
    PodsChanged,
    PolicyChanged,
    Started,
    WorkloadSubmitted,
)
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.settings import Settings
from services.scheduler.core.state import State

GPU = "nvidia.com/gpu"
NODE = {"cpu": 96_000, "memory": 2**40, "pods": 110, GPU: 8}


def amounts(*, gpu: int = 0, cpu: int = 0, memory: int = 0) -> dict[str, int]:
    """Requests of one pod: GPUs, millicores, bytes."""
    return {"pods": 1, GPU: gpu, "cpu": cpu, "memory": memory}


def node_class(
    name: str = "gpu",
    *,
    free: Sequence[Mapping[str, int]] | None = None,
    nodes: int = 1,
    allocatable: Mapping[str, int] = NODE,
    stock: int | None = None,
    max_nodes: int = 100,
    node_labels: Mapping[str, str] | None = None,
    **rest: Any,
) -> NodeClass:
    """A class whose nodes are empty, or whose free blocks are given as overrides of the allocatable, one node each."""
    blocks: tuple[FreeBlock, ...]
    if free is None:
        blocks = (FreeBlock(nodes, resources(dict(allocatable))),) if nodes else ()
    else:
        blocks = tuple(FreeBlock(1, resources({**allocatable, **block})) for block in free)
        nodes = max(nodes, len(blocks))
    elastic = None if stock is None else ElasticStock(max_nodes, stock)
    return NodeClass(
        name, resources(dict(allocatable)), nodes, labels(node_labels), free=blocks, elastic=elastic, **rest
    )


def gpus_free(*counts: int, name: str = "gpu", **rest: Any) -> NodeClass:
    """A class with one node per count, each with so many GPUs free."""
    return node_class(name, free=[{GPU: count} for count in counts], **rest)


def inventory(
    cluster: str, *classes: NodeClass, at: float = 0.0, n: int = 0, incarnation: str = "", **rest: Any
) -> Inventory:
    """A snapshot of a healthy cluster."""
    return Inventory(
        cluster, SnapshotId(incarnation, 0, n), observed_at=at, node_classes=classes, **{"health": Health.READY, **rest}
    )


def deployment(
    name: str = "llm",
    replicas: int = 1,
    *,
    gpu: int = 1,
    kind: str = "Deployment",
    uid: str = "",
    digest: str = "",
    version: int = 0,
    arrival: int = 0,
    pod_labels: Mapping[str, str] | None = None,
    shape: PodShape | None = None,
    **rest: Any,
) -> Workload:
    """A Deployment in the namespace test; every replica asks for some GPUs."""
    return Workload(
        key=f"test/{kind}/{name}",
        api_version="apps/v1",
        kind=kind,
        namespace="test",
        name=name,
        components=(Component("main", replicas, shape or PodShape(resources(amounts(gpu=gpu))), labels(pod_labels)),),
        division=Division.REPLICAS,
        job=False,
        uid=uid,
        version=version,
        arrival=arrival,
        digest=digest or f"{name}-{replicas}-{gpu}-{uid}",
        **rest,
    )


def job(
    name: str = "train",
    components: Mapping[str, tuple[int, int]] | None = None,
    *,
    uid: str = "",
    digest: str = "",
    arrival: int = 0,
    **rest: Any,
) -> Workload:
    """A PyTorchJob; components give (replicas, GPUs each)."""
    parts = components or {"Master": (1, 1), "Worker": (1, 1)}
    return Workload(
        key=f"test/PyTorchJob/{name}",
        api_version="kubeflow.org/v1",
        kind="PyTorchJob",
        namespace="test",
        name=name,
        components=tuple(Component(n, r, PodShape(resources(amounts(gpu=g)))) for n, (r, g) in parts.items()),
        division=Division.WHOLE,
        job=True,
        uid=uid,
        arrival=arrival,
        digest=digest or f"{name}-{sorted(parts.items())}-{uid}",
        **rest,
    )


def policy(
    *groups: Sequence[str],
    division: DivisionType = DivisionType.DYNAMIC,
    name: str = "pp",
    kinds: Sequence[tuple[str, str]] = (
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("kubeflow.org/v1", "PyTorchJob"),
    ),
    version: int = 0,
    gang: bool = False,
    static_weights: Any = (),
    prioritized: bool | None = None,
    **rest: Any,
) -> PropagationPolicy:
    """A PropagationPolicy of the namespace test over groups of clusters (none: all clusters)."""
    return PropagationPolicy(
        name=name,
        namespace=rest.pop("namespace", "test"),
        selectors=tuple(ResourceSelector(api, kind) for api, kind in kinds),
        placement=PlacementRule(
            groups=tuple(ClusterAffinity(f"g{i}", tuple(clusters)) for i, clusters in enumerate(groups)),
            prioritized=len(groups) > 1 if prioritized is None else prioritized,
            division=division,
            static_weights=static_weights,
            gang=gang,
        ),
        version=version,
        digest=f"{name}-{version}",
        manifest={"metadata": {"name": name}, "spec": {"priority": version}},
        **rest,
    )


@dataclass
class World:
    """The core, its clock, and the topics that it writes."""

    # What else is looked at after every decision.
    watch: ClassVar[Callable[[Outputs], None] | None] = None

    settings: Settings = field(default_factory=Settings)
    now: float = 1000.0
    epoch: int = 1
    state: State = field(init=False)
    last: Outputs = field(init=False)
    inputs: list[Event] = field(default_factory=list)
    editions: list[PropagationPolicy] = field(default_factory=list)
    started_from: list[Event] = field(default_factory=list)
    placements: dict[str, tuple[Version, Placement | None]] = field(default_factory=dict)
    assignments: dict[tuple[str, str], tuple[Version, Assignment | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = State(self.settings)
        self.feed(Started(self.epoch, "log"))

    def feed(self, *events: Event, write: bool = True) -> Outputs:
        """Decides on events and, unless the process dies before it can, writes what follows."""
        self.inputs.extend(e for e in events if not isinstance(e, Started | PlacementRead | AssignmentRead))
        policies = [event.policy for event in events if isinstance(event, PolicyChanged)]
        self.editions += [policy for policy in policies if isinstance(policy, PropagationPolicy)]
        self.last = self._decided(events)
        if write:
            self.write(self.last)
        return self.last

    def _decided(self, events: Sequence[Event]) -> Outputs:
        out = decide(self.state, events, self.now)
        if World.watch is not None:
            World.watch(out)
        return out

    def write(self, out: Outputs, *, placements: bool = True, assignments: bool = True) -> None:
        """Appends outputs to the topics."""
        for p in out.placements if placements else ():
            self.placements[p.workload] = (p.version, p.placement)
        for a in out.assignments if assignments else ():
            self.assignments[a.workload, a.cluster] = (a.version, a.assignment)

    def restart(self, *more: Event) -> Outputs:
        """Starts a new instance under the next epoch from the topics alone."""
        self.epoch += 1
        self.state = State(self.settings)
        own: list[Event] = [PlacementRead(k, v, p, self._edition(p)) for k, (v, p) in self.placements.items()]
        own += [AssignmentRead(w, c, v, a) for (w, c), (v, a) in self.assignments.items()]
        self.started_from = [*own, *self.inputs, *more, Started(self.epoch, "log")]
        self.last = self._decided(self.started_from)
        self.inputs.extend(more)
        self.write(self.last)
        return self.last

    def _edition(self, placement: Placement | None) -> PropagationPolicy | None:
        """The policy that a placement carries, as the shell reads it."""
        if placement is None or placement.edition is None:
            return None
        return next(known for known in self.editions if known.manifest == placement.edition)

    def clusters(self, **free: int | NodeClass | Sequence[NodeClass]) -> None:
        """Registers clusters by name with so many nodes of one free GPU (0: one full node), or with node classes."""
        events: list[Event] = []
        for cluster, what in free.items():
            classes = (
                [gpus_free(*([1] * what or [0]))]
                if isinstance(what, int)
                else [what]
                if isinstance(what, NodeClass)
                else list(what)
            )
            events += [
                ClusterRegistered(ClusterSpec(cluster)),
                InventoryChanged(inventory(cluster, *classes, at=self.now)),
            ]
        self.feed(*events)

    def observe(self, cluster: str, *classes: NodeClass, **rest: Any) -> Outputs:
        """Publishes a snapshot."""
        return self.feed(InventoryChanged(inventory(cluster, *classes, at=self.now, **rest)))

    def snapshot(self, cluster: str, *classes: NodeClass, bound: Mapping[str, int]) -> Outputs:
        """Publishes a snapshot together with the bound pods of workloads (of their component ``main``)."""
        pods = (WorkloadPods(cluster, k, components=(("main", ComponentPods(bound=n)),)) for k, n in bound.items())
        return self.feed(*(PodsChanged(p) for p in pods), InventoryChanged(inventory(cluster, *classes, at=self.now)))

    def refresh(self) -> None:
        """Publishes every snapshot again, as heartbeats do."""
        for member in self.state.fleet.by_index:
            known = member.inventory
            if known is not None:
                heartbeat = Inventory(**{**_fields(known), "observed_at": self.now})
                self.feed(InventoryChanged(heartbeat))

    def virtual(self, cluster: str, *nodes: VirtualNode, spec: ClusterSpec | None = None) -> Outputs:
        """Registers a cluster that has virtual nodes only."""
        return self.feed(
            ClusterRegistered(spec or ClusterSpec(cluster)),
            InventoryChanged(Inventory(cluster, observed_at=self.now, virtual_nodes=nodes)),
        )

    def submit(self, workload: Workload, *policies: PropagationPolicy) -> Outputs:
        """Submits a workload, with its policies if any are given."""
        return self.feed(*(PolicyChanged(p) for p in policies), WorkloadSubmitted(workload))

    def placement(self, key: str) -> Placement:
        """The last placement of a workload on the topic."""
        placement = self.placements[key][1]
        assert placement is not None, f"{key} has a tombstone"
        return placement

    def assigned(self, key: str) -> dict[str, int]:
        """Replicas by cluster."""
        return {share.cluster: share.replicas for share in self.placement(key).shares}

    def assignment(self, key: str, cluster: str) -> Assignment:
        """The last assignment on the topic."""
        assignment = self.assignments[key, cluster][1]
        assert assignment is not None, f"{key} in {cluster} has a tombstone"
        return assignment

    def states(self, key: str) -> dict[str, str]:
        """States of a workload's assignments by cluster, without tombstones."""
        return {c: a.state.value for (w, c), (_, a) in sorted(self.assignments.items()) if w == key and a is not None}

    def bind(self, key: str, cluster: str, **bound: int) -> Outputs:
        """Reports bound pods by component, and nothing else."""
        components = tuple(sorted((name, ComponentPods(bound=count)) for name, count in bound.items()))
        return self.feed(PodsChanged(WorkloadPods(cluster, key, components=components)))

    def observed(
        self,
        key: str,
        cluster: str,
        phase: ObservedPhase = ObservedPhase.APPLIED,
        health: WorkloadHealth = WorkloadHealth.HEALTHY,
        version: Version | None = None,
        **rest: Any,
    ) -> Outputs:
        """Reports what a cluster made of its assignment."""
        version = self.assignments[key, cluster][0] if version is None else version
        return self.feed(Observed(Observation(key, cluster, version, phase, health=health, **rest)))

    def gone(self, key: str, cluster: str, **rest: Any) -> Outputs:
        """Reports a removal as done."""
        return self.observed(key, cluster, ObservedPhase.GONE, WorkloadHealth.UNKNOWN, **rest)

    def codes(self, key: str) -> dict[str, str]:
        """Reason codes by cluster (empty: the workload as a whole)."""
        return {reason.cluster: reason.code.value for reason in self.placement(key).reasons}

    def message(self, key: str, cluster: str = "") -> str:
        """The message of the first reason for a cluster."""
        return next(r.message for r in self.placement(key).reasons if r.cluster == cluster)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
