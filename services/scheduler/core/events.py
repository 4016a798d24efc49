"""What can happen to the scheduler's state. Every event is the whole truth about its key, as its record is.

Events of one batch are applied to the tables first, then decided on together, so their order inside a batch matters
only where the same key occurs twice (the later one holds). An event may be repeated; a repetition changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpufleet.model.cluster import ClusterSpec, Inventory, WorkloadPods
from gpufleet.model.overrides import OverridePolicy
from gpufleet.model.placement import Assignment, Eviction, Observation, Placement, Version
from gpufleet.model.policy import PriorityClass, PropagationPolicy, ResourcePolicy
from gpufleet.model.quota import ElasticQuotaTree, QueueRule
from gpufleet.model.workload import Workload

Policy = PropagationPolicy | OverridePolicy | ResourcePolicy | PriorityClass | ElasticQuotaTree | QueueRule


@dataclass(frozen=True, slots=True)
class ClusterRegistered:
    """A cluster was registered, or its registration changed; ``at`` (epoch seconds) says when, None: now."""

    spec: ClusterSpec
    at: float | None = None


@dataclass(frozen=True, slots=True)
class ClusterRemoved:
    """A cluster's registration was deleted (a tombstone): its replicas are lost and nobody serves it any more."""

    cluster: str


@dataclass(frozen=True, slots=True)
class InventoryChanged:
    """A whole snapshot of a cluster, published by its closing record; also a mere heartbeat."""

    inventory: Inventory


@dataclass(frozen=True, slots=True)
class InventoryGone:
    """The inventory of a cluster was deleted."""

    cluster: str


@dataclass(frozen=True, slots=True)
class PodsChanged:
    """What a workload's pods do in a cluster; of the same snapshot as the inventory that it comes with."""

    pods: WorkloadPods


@dataclass(frozen=True, slots=True)
class PodsGone:
    """A cluster has no pods of a workload (any more)."""

    cluster: str
    workload: str


@dataclass(frozen=True, slots=True)
class WorkloadSubmitted:
    """A workload was submitted; with the digest of the last submission it is a no-op."""

    workload: Workload


@dataclass(frozen=True, slots=True)
class WorkloadDeleted:
    """A workload was deleted (a tombstone at offset ``version``)."""

    workload: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class WorkloadUnreadable:
    """The last record of a workload cannot be read; it counts as present and stays as last decided."""

    workload: str
    error: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """A policy object was written. Its key on the topic is `policy_key(policy)`."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class PolicyRemoved:
    """A policy object was deleted; what was placed by it stays where it is. ``key`` is kind/namespace/name."""

    key: str


@dataclass(frozen=True, slots=True)
class Scaled:
    """The total that overrides the manifest's replicas; None gives the manifest its say again."""

    workload: str
    replicas: int | None


@dataclass(frozen=True, slots=True)
class Evicted:
    """The rescheduler's word about a workload."""

    eviction: Eviction


@dataclass(frozen=True, slots=True)
class EvictionGone:
    """The rescheduler has nothing to say about a workload any more."""

    workload: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What a cluster made of an assignment."""

    observation: Observation


@dataclass(frozen=True, slots=True)
class ObservationGone:
    """An observation was deleted."""

    workload: str
    cluster: str


@dataclass(frozen=True, slots=True)
class PlacementRead:
    """A record of the placements topic: ours, or another epoch's. None is a tombstone; ``version`` is its header.

    ``edition`` is the policy in the placement's `edition`.
    """

    workload: str
    version: Version
    placement: Placement | None
    edition: PropagationPolicy | None = None


@dataclass(frozen=True, slots=True)
class AssignmentRead:
    """A record of the assignments topic: ours, or another epoch's. None is a tombstone; ``version`` is its header."""

    workload: str
    cluster: str
    version: Version
    assignment: Assignment | None


@dataclass(frozen=True, slots=True)
class Started:
    """The tables are read to their end and this instance decides from now on, under ``epoch``."""

    epoch: int
    log: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """This instance does not decide any more; it goes on keeping its tables."""


@dataclass(frozen=True, slots=True)
class RescheduleRequested:
    """Divide a workload afresh, as if nothing of it were placed (the scenario step `reschedule`)."""

    workload: str


@dataclass(frozen=True, slots=True)
class FreezeChanged:
    """While frozen nothing is written to clusters, so the time-outs of reservations stand still."""

    frozen: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; send it when `Outputs.wake_at` is due."""


Event = (
    ClusterRegistered
    | ClusterRemoved
    | InventoryChanged
    | InventoryGone
    | PodsChanged
    | PodsGone
    | WorkloadSubmitted
    | WorkloadDeleted
    | WorkloadUnreadable
    | PolicyChanged
    | PolicyRemoved
    | Scaled
    | Evicted
    | EvictionGone
    | Observed
    | ObservationGone
    | PlacementRead
    | AssignmentRead
    | Started
    | Stopped
    | RescheduleRequested
    | FreezeChanged
    | Tick
)


def policy_key(policy: Policy) -> str:
    """Returns ``kind/namespace/name``, the key on the policies topic."""
    match policy:
        case PropagationPolicy() | OverridePolicy() | ElasticQuotaTree() | QueueRule():
            return policy.key
        case ResourcePolicy():
            return f"ResourcePolicy/{policy.namespace}/{policy.name}"
        case PriorityClass():
            return f"PriorityClass//{policy.name}"
