"""A member cluster as the scheduler sees it: registration and inventory.

Free capacity is never a sum: a node class says how many nodes have which free resources (free blocks), because
eight free GPUs on two nodes are not eight free GPUs on one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from gpufleet.model.resources import Labels, Resources
from gpufleet.model.selectors import Taint


class Health(StrEnum):
    """What inventory knows of a cluster's API."""

    READY = "Ready"
    UNREACHABLE = "Unreachable"


@dataclass(frozen=True, slots=True)
class Scoring:
    """By what a cluster's own scheduler chooses among nodes that fit: the `scoringStrategy` of kube-scheduler.

    ``packs``: the node with the most allocated (`MostAllocated`), else with the least (`LeastAllocated`), of some
    resources by weight; of cpu and memory alike if there are none.
    """

    packs: bool = False
    weights: tuple[tuple[str, int], ...] = ()

    @property
    def looked_at(self) -> tuple[tuple[str, int], ...]:
        """The resources that are looked at, with their weights."""
        return self.weights or (("cpu", 1), ("memory", 1))


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What an operator registers: the `spec` of a Cluster document, and its labels."""

    name: str
    labels: Labels = ()
    provider: str = ""
    region: str = ""
    zones: tuple[str, ...] = ()
    taints: tuple[Taint, ...] = ()
    scoring_strategy: Scoring | None = None  # None: kube-scheduler's default


@dataclass(frozen=True, slots=True)
class FreeBlock:
    """``nodes`` nodes that each have exactly ``free`` left; ``gpu_free`` are thousandths free per shared device.

    ``numbers`` says which of them have pods of the fleet's workloads, as `NodePods` calls them.
    """

    nodes: int
    free: Resources
    gpu_free: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ElasticStock:
    """Nodes of a class that could still be created: the smaller of both bounds counts."""

    max_nodes: int
    stock: int
    provision_seconds: float = 180.0

    @property
    def nodes(self) -> int:
        """Nodes that may be added now."""
        return max(0, min(self.max_nodes, self.stock))


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Nodes alike in labels, taints and shape. Nodes that no free block lists are full."""

    name: str
    allocatable: Resources
    nodes: int
    labels: Labels = ()
    taints: tuple[Taint, ...] = ()
    free: tuple[FreeBlock, ...] = ()
    elastic: ElasticStock | None = None


@dataclass(frozen=True, slots=True)
class ModelStock:
    """GPUs of one model series that a serverless region can still start."""

    model: str
    gpus: int


@dataclass(frozen=True, slots=True)
class VirtualNode:
    """A virtual kubelet: one pod is one instance. ``stock`` None is unlimited; given, a model not listed has none."""

    name: str
    labels: Labels = ()
    taints: tuple[Taint, ...] = ()
    stock: tuple[ModelStock, ...] | None = None


@dataclass(frozen=True, slots=True)
class SnapshotId:
    """Which look at a cluster this is: the cluster's incarnation, the owner's epoch, and the owner's counter.

    ``incarnation`` is the UID of the namespace kube-system, so a new cluster under an old name inherits nothing.
    """

    incarnation: str = ""
    epoch: int = 0
    n: int = 0


@dataclass(frozen=True, slots=True)
class NamespaceQuota:
    """A ResourceQuota of a namespace: what its pods may ask for together, and what they ask for now.

    ``bounds`` are the resources that it bounds, named as pods request them (``cpu``, ``nvidia.com/gpu``, ``pods``), not
    as ``requests.cpu``; one that ``hard`` leaves out is bounded to nothing.
    """

    namespace: str
    bounds: tuple[str, ...]
    hard: Resources = ()
    used: Resources = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """A whole snapshot of one cluster. ``apis`` None means every kind is served (``apps/v1/Deployment`` items)."""

    cluster: str
    snapshot: SnapshotId = field(default_factory=SnapshotId)
    observed_at: float = 0.0
    health: Health = Health.READY
    message: str = ""
    apis: frozenset[str] | None = None
    namespaces: frozenset[str] | None = None  # None: not known, every namespace is taken to exist
    node_classes: tuple[NodeClass, ...] = ()
    virtual_nodes: tuple[VirtualNode, ...] = ()
    quotas: tuple[NamespaceQuota, ...] = ()  # as far as they are known


@dataclass(frozen=True, slots=True)
class UnitPods:
    """Pods of one unit of a ResourcePolicy (``unit``: its id; empty: of none): on nodes, finished, being deleted."""

    unit: str = ""
    bound: int = 0
    finished: int = 0
    terminating: int = 0


@dataclass(frozen=True, slots=True)
class NodePods:
    """Pods of one component, of one unit, that lie on one node of a class (or on a virtual node, by its name).

    The free blocks of the class say what the node of this ``number`` has left; of one that they do not list nothing
    can be used now. Numbers mean something only beside the inventory of the same snapshot; 0: which node is not told.
    """

    node_class: str
    number: int
    pods: int
    unit: str = ""


@dataclass(frozen=True, slots=True)
class ComponentPods:
    """What the pods of one component do in one cluster; counts of pods.

    ``unschedulable`` lists since when (epoch seconds) each pod of the newest revision has not been schedulable,
    oldest first, without the ones that wait for a node being provisioned. ``timed_out`` of them have waited for one
    that did not come within the provisioning time. ``nodes`` says where the bound ones are, as far as that is told, in
    the order in which they go when replicas are taken away; ``leaving`` where those are that are being deleted.
    """

    bound: int = 0
    ready: int = 0
    finished: int = 0
    failed: int = 0
    evicted: int = 0
    unschedulable: tuple[float, ...] = ()
    provisioning: int = 0
    provisioning_since: float | None = None
    no_stock: bool = False
    message: str = ""
    units: tuple[UnitPods, ...] = ()  # by unit; absent where no pod bears a unit's mark and none is being deleted
    timed_out: int = 0
    nodes: tuple[NodePods, ...] = ()
    leaving: tuple[NodePods, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadPods:
    """What a cluster's pods of one workload do, by component name (sorted)."""

    cluster: str
    workload: str
    snapshot: SnapshotId = field(default_factory=SnapshotId)
    components: tuple[tuple[str, ComponentPods], ...] = ()
