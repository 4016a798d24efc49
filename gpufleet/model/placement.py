"""Decisions and what became of them: placements, assignments, observations, evictions."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from gpufleet.model.reasons import Reason, Verdict
from gpufleet.model.values import value


class Version(NamedTuple):
    """Orders decisions: the epoch (offset of the deciding scheduler's claim) first, then the placement's counter."""

    epoch: int = 0
    version: int = 0


class Source(StrEnum):
    """Where the room for replicas was counted when they were placed."""

    RUNNING = "running"
    ELASTIC = "elastic"
    VIRTUAL = "virtual"


@value(frozen=True, slots=True)
class Slot:
    """``count`` pods of a component on a node class (or a virtual node) of a cluster, and where the room came from."""

    component: str
    node_class: str
    count: int
    source: Source = Source.RUNNING
    unit: int | None = None  # index of the ResourcePolicy unit
    variant: str = ""  # id of the unit's content, which stays the same when the policy's order changes


class _Counted:
    """What is computed once of a share; no field, so that it is neither compared nor written."""

    __slots__ = ("replicas",)
    replicas: int  # pods of all components


@value(frozen=True, slots=True)
class ClusterShare(_Counted):
    """One cluster's part of a placement. ``components`` gives replicas by component, sorted by name."""

    cluster: str
    components: tuple[tuple[str, int], ...]
    slots: tuple[Slot, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "replicas", sum([count for _, count in self.components]))

    def count(self, source: Source) -> int:
        """Pods whose room was counted from a source."""
        return sum(slot.count for slot in self.slots if slot.source is source)

    def awaited(self, component: str, there: int) -> tuple[str, ...]:
        """Returns the node classes of which a component needs nodes that are not there yet, in order of name.

        ``there`` pods of it are on nodes or finished; those count as the ones that were placed on running nodes first.
        """
        found = set()
        slots = [slot for slot in self.slots if slot.component == component]
        for slot in sorted(slots, key=lambda slot: slot.source is Source.ELASTIC):
            if slot.source is Source.ELASTIC and slot.count > there:
                found.add(slot.node_class)
            there = max(0, there - slot.count)
        return tuple(sorted(found))


def pods_of(shares: Iterable[ClusterShare]) -> int:
    """Returns the pods of some shares together."""
    return sum([share.replicas for share in shares])


def clusters_of(shares: Iterable[ClusterShare]) -> tuple[str, ...]:
    """Returns the clusters of some shares."""
    return tuple([share.cluster for share in shares])


@value(frozen=True, slots=True)
class UnitWait:
    """Pods wait for room in a unit of a ResourcePolicy (``unit``: its id) since a time (epoch seconds)."""

    cluster: str
    unit: str
    since: float


@value(frozen=True, slots=True)
class Placement:
    """The decision about one workload; the whole truth about it.

    ``inputs`` are digests of the workload, policies and evictions it was derived from (rule 4): assignments are
    derived from it only while they are the same. ``tried_at`` is when it was decided (epoch seconds).
    """

    workload: str
    version: Version
    verdict: Verdict
    replicas: int
    shares: tuple[ClusterShare, ...] = ()
    reasons: tuple[Reason, ...] = ()
    policy: str = ""
    uid: str = ""
    workload_version: int = 0
    inputs: tuple[tuple[str, str], ...] = ()
    decided_at: float = 0.0
    queue_position: int | None = None
    # Clusters that may still hold a copy which must be gone before the shares of a job may start (rule 8).
    leaving: tuple[str, ...] = ()
    arrival: int = 0
    # What the rescheduler needs to know of the workload and its policy: whether it is a job, whether its replicas
    # may be moved (divided by available replicas, or placed whole), and whether its own failures move it too.
    job: bool = False
    movable: bool = False
    redispatch_user_failures: bool = False
    # Of a gang: pods that must run together; the others wait for room beside them. None: all.
    min_member: int | None = None
    # Where unplaced pods wait for room before they may go on to a next unit.
    unit_waits: tuple[UnitWait, ...] = ()
    # Of a lazy policy: the document that counts for the workload until that changes, whatever the policy says by then.
    edition: Mapping[str, Any] | None = field(default=None, hash=False)
    # While it waits (with a position): whose queue, the quota's name or empty; its priority; and since when.
    queue: str = ""
    priority: int = 0
    waiting_since: float | None = None
    # Where one priority group takes everything: the name of that which does.
    group: str = ""

    @property
    def placed(self) -> int:
        """Pods that have a cluster."""
        return pods_of(self.shares)

    @property
    def unplaced(self) -> int:
        """Pods that have none."""
        return max(0, self.replicas - self.placed)

    def share(self, cluster: str) -> ClusterShare | None:
        """Returns a cluster's part, or None."""
        return next((s for s in self.shares if s.cluster == cluster), None)


class AssignmentState(StrEnum):
    """What the dispatcher is to do (rule 8)."""

    ACTIVE = "Active"
    REMOVING = "Removing"
    WAITING = "Waiting"  # derives nothing until the clusters in `waits_for` report gone


@dataclass(frozen=True, slots=True)
class Awaited:
    """A copy that must be gone: its cluster, and the version at which its removal was ordered.

    A ``gone`` of another ``incarnation`` (a new cluster under the old name) says nothing about this copy.
    """

    cluster: str
    version: Version
    incarnation: str = ""


@value(frozen=True, slots=True)
class Variant:
    """A further object in the same cluster, for the pods that land in another unit of a ResourcePolicy.

    ``name`` is the object's; ``components`` are its replicas, all 0: the object is not wanted any more.
    """

    unit: str
    name: str
    components: tuple[tuple[str, int], ...] = ()
    patches: tuple[Mapping[str, Any], ...] = ()
    overrides: tuple[Mapping[str, Any], ...] = ()


@value(frozen=True, slots=True)
class Assignment:
    """One cluster's self-contained work order; the dispatcher needs nothing else.

    ``division`` is the whole division that it is part of (cluster to replicas). ``manifest`` is the template as it
    was submitted, ``patches`` are applied to it in order (JSON patch operations), then replicas are set, then
    ``overrides`` applied (JSON patch operations too, of the override policies that mean this cluster).
    ``components``, ``patches`` and ``overrides`` are those of the object that bears the workload's name, whose pods are
    in ``unit``; ``variants`` are the objects of the other units.
    """

    workload: str
    cluster: str
    version: Version
    state: AssignmentState
    manifest: Mapping[str, Any] = field(default_factory=dict)
    components: tuple[tuple[str, int], ...] = ()
    division: tuple[tuple[str, int], ...] = ()
    patches: tuple[Mapping[str, Any], ...] = ()
    overrides: tuple[Mapping[str, Any], ...] = ()
    uid: str = ""
    waits_for: tuple[Awaited, ...] = ()
    job: bool = False
    conflict_overwrite: bool = False
    preserve_on_deletion: bool = False
    create_namespaces: bool = False
    suspended: bool = False
    # The cluster's incarnation that was decided on (rule 2); empty: not known.
    incarnation: str = ""
    # Set where a removed object is not to be deleted but only to be let go of.
    orphan: bool = False
    unit: str = ""
    variants: tuple[Variant, ...] = ()


@value(frozen=True, slots=True)
class AssignmentColumns:
    """Assignments of one decision that differ in cluster, components and incarnation only: one column for each.

    ``common`` has none of the three. ``clusters`` are in order of name, the other columns in the order of these.
    """

    common: Assignment
    clusters: tuple[str, ...]
    components: tuple[tuple[tuple[str, int], ...], ...]
    incarnations: tuple[str, ...]

    def place(self, cluster: str) -> int | None:
        """Returns where a cluster is in the columns, or None."""
        place = bisect_left(self.clusters, cluster)
        return place if place < len(self.clusters) and self.clusters[place] == cluster else None

    def at(self, place: int) -> Assignment:
        """Returns the assignment at a place."""
        made = copy(self.common)
        object.__setattr__(made, "cluster", self.clusters[place])
        object.__setattr__(made, "components", self.components[place])
        object.__setattr__(made, "incarnation", self.incarnations[place])
        return made

    def __iter__(self) -> Iterator[Assignment]:
        return (self.at(place) for place in range(len(self.clusters)))


class ObservedPhase(StrEnum):
    """What the dispatcher last did with an assignment."""

    PENDING = "Pending"  # not done yet: cluster away, waiting, suspended
    APPLIED = "Applied"
    REFUSED = "Refused"  # permanently: the API does not take it
    GONE = "Gone"


class WorkloadHealth(StrEnum):
    """Health of the object in its cluster, as Karmada's interpreters judge it."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    PROGRESSING = "Progressing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


class FailureClass(StrEnum):
    """Who is to blame when a job failed (specification 7.3)."""

    NONE = ""
    START = "Start"  # could not start for lack of room
    INFRASTRUCTURE = "Infrastructure"  # node or cluster lost, evicted, preempted
    USER = "User"  # its own containers failed


@value(frozen=True, slots=True)
class Observation:
    """What a cluster made of an assignment. ``version`` is the assignment's that this answers."""

    workload: str
    cluster: str
    version: Version
    phase: ObservedPhase
    incarnation: str = ""
    health: WorkloadHealth = WorkloadHealth.UNKNOWN
    failure: FailureClass = FailureClass.NONE
    ready: int = 0
    code: str = ""
    message: str = ""
    observed_at: float = 0.0
    object_uid: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterCap:
    """Bounds a workload's replicas in a cluster until a time; ``max_replicas`` 0 avoids the cluster.

    ``node_classes`` are those of which nodes were to be created for the replicas that it takes back, and did not come.
    """

    cluster: str
    max_replicas: int
    until: float
    code: str
    message: str = ""
    node_classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DispatchRecord:
    """One past stay of a job in a cluster (`dispatchHistory`)."""

    cluster: str
    start: float
    end: float
    reason: str


@dataclass(frozen=True, slots=True)
class Eviction:
    """The rescheduler's whole word about a workload. It applies once, to the placement version that it judged."""

    workload: str
    judged: Version
    caps: tuple[ClusterCap, ...] = ()
    attempts: int = 0
    history: tuple[DispatchRecord, ...] = ()
    not_before: float = 0.0  # back-off: do not place before (epoch seconds)
    give_up: bool = False
    at: float = 0.0
