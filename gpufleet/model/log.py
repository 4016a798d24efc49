"""What travels on the log besides workloads, policies and decisions: registrations, parts of an inventory snapshot,
scales, claims, and the inputs of past decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpufleet.model.cluster import ClusterSpec, Health, NamespaceQuota, NodeClass, SnapshotId, VirtualNode
from gpufleet.model.placement import Placement, Version


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """How a cluster's API is reached. All empty: not at all.

    ``kubeconfig`` is the path of a file, ``inline`` the content of one, ``secret_ref`` names a mounted Secret,
    ``in_cluster`` is the service account of the reader's own pod, ``simulated`` a simulated cluster.
    """

    kubeconfig: str = ""
    context: str = ""
    secret_ref: Mapping[str, Any] | None = None  # name, namespace, key
    simulated: Mapping[str, Any] | None = None
    inline: Mapping[str, Any] | None = None
    in_cluster: bool = False


@dataclass(frozen=True, slots=True)
class ClusterRegistration:
    """What an operator registers. ``version`` is the offset of the record."""

    spec: ClusterSpec
    access: ClusterAccess = field(default_factory=ClusterAccess)
    version: int = 0

    @property
    def name(self) -> str:
        """The cluster's id."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class ClassInventory:
    """One node class of a cluster, as of a snapshot."""

    cluster: str
    snapshot: SnapshotId
    node_class: NodeClass


@dataclass(frozen=True, slots=True)
class InventorySummary:
    """A cluster's own record. It is written last and closes snapshot ``snapshot.n``.

    ``classes`` and ``pods`` (workload keys) name what belongs to the snapshot; other keys of the cluster do not. Counts
    would not do: a part too much (a tombstone that was lost, a replaced owner's late record) would never go away.
    ``observed_at`` is when its API last answered (epoch seconds; 0: not since its owner took it over).
    ``apis`` None: every kind is served. ``namespaces`` None: not known.
    """

    cluster: str
    snapshot: SnapshotId = field(default_factory=SnapshotId)
    observed_at: float = 0.0
    health: Health = Health.READY
    message: str = ""
    apis: frozenset[str] | None = None
    namespaces: frozenset[str] | None = None
    virtual_nodes: tuple[VirtualNode, ...] = ()
    classes: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    quotas: tuple[NamespaceQuota, ...] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """The total that overrides the replicas of a workload's manifest. ``version`` is the offset of the record."""

    workload: str
    replicas: int
    requested_by: str = ""
    requested_at: float = 0.0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A service instance claims to decide, for a shard where the service is sharded; the epoch is the offset."""

    service: str
    instance: str
    shard: int | None = None
    claimed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class LogId:
    """The random id of this log; another id means that the log was lost and begun anew."""

    id: str


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A decision and what it was derived from, for replay and explain.

    ``state`` is what the scheduler knew, in its own words (`services.scheduler.core.evidence`); ``settings`` are the
    scheduler's; ``omitted`` says what was left out because of the record's size. ``because`` names the workload whose
    decision this is a consequence of; then there is no state. ``documents`` are those of earlier schedulers.
    """

    workload: str
    version: Version
    decided_at: float
    trigger: str = ""
    documents: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    placement: Placement | None = None
    omitted: tuple[str, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    because: str = ""
