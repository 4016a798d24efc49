"""The scheduler's memory: a cache of topics, owned by the caller and changed only by `decide`."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import replace

from gpufleet.model.cluster import WorkloadPods
from gpufleet.model.placement import Assignment, AssignmentColumns, Eviction, Observation, Placement, Version
from gpufleet.model.policy import PriorityClass, PropagationPolicy, ResourcePolicy
from gpufleet.model.reasons import Verdict
from gpufleet.model.workload import Division, Workload
from services.scheduler.core import activation
from services.scheduler.core.assigned import Assigned
from services.scheduler.core.booking import Booked
from services.scheduler.core.credit import Credits
from services.scheduler.core.divide import Mode
from services.scheduler.core.filter import CandidateCache
from services.scheduler.core.fleet import Fleet
from services.scheduler.core.fragmentation import Mix
from services.scheduler.core.outputs import AssignmentWrite, PlacementWrite
from services.scheduler.core.overrides import Overrides
from services.scheduler.core.queue import Order, Queue
from services.scheduler.core.quota import Quotas
from services.scheduler.core.ranking import priority
from services.scheduler.core.recalled import Recalled
from services.scheduler.core.required import RequiredBy
from services.scheduler.core.select import PolicyIndex
from services.scheduler.core.settings import Settings
from services.scheduler.core.units import Way
from services.scheduler.core.victims import Victims

# Verdicts that stand until the submission changes or somebody asks to reschedule.
FINAL = frozenset({Verdict.FINISHED, Verdict.FAILED, Verdict.GIVEN_UP})
# Verdicts under which nothing is held any more.
RELEASED = frozenset({Verdict.FINISHED, Verdict.FAILED, Verdict.DELETING})


class Entry:
    """Everything known about one workload key."""

    __slots__ = (
        "applied",
        "arrival",
        "assignments",
        "booked",
        "current",
        "deadline",
        "deleted",
        "derived",
        "eviction",
        "expired",
        "gone",
        "held_in",
        "key",
        "observations",
        "overwritten",
        "placement",
        "pods",
        "rewrite",
        "scale",
        "timer",
        "unreadable",
        "ways",
        "ways_for",
        "workload",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.workload: Workload | None = None  # as submitted
        self.current: Workload | None = None  # with the scale applied
        self.deleted = False
        self.unreadable = ""
        self.scale: int | None = None
        self.placement: Placement | None = None
        self.assignments = Assigned()
        # What the assignments were derived from last, and what they were then.
        self.derived: tuple[tuple[object, ...], AssignmentColumns | list[Assignment]] | None = None
        self.observations: dict[str, Observation] = {}
        self.pods: dict[str, WorkloadPods] = {}
        self.eviction: Eviction | None = None
        self.arrival: int | None = None
        self.applied: PropagationPolicy | None = None  # the edition that it was last decided by
        # What a record of a lower epoch has overwritten: the placement, and assignments by cluster (rule 5).
        self.rewrite = False
        self.overwritten: set[str] = set()
        # Clusters that reported gone since a copy was last ordered there.
        self.gone: set[str] = set()
        # The ledger's part: where it holds something, until when, and whether that time has run out.
        self.held_in: set[str] = set()
        self.booked: Booked | None = None  # the same with pools and counts, while it is as it was decided
        self.deadline: float | None = None
        self.expired = False
        self.timer: float | None = None
        self.ways: tuple[Way, ...] = ()
        self.ways_for: tuple[object, ...] | None = None

    def set_workload(self, workload: Workload | None) -> None:
        """Sets the submission and applies the scale to it."""
        self.workload = workload
        self.current = _scaled(workload, self.scale)
        self.ways_for = None

    def set_scale(self, scale: int | None) -> None:
        """Sets the total that overrides the manifest's."""
        self.scale = scale
        self.current = _scaled(self.workload, scale)

    @property
    def version(self) -> Version:
        """The highest version known among placement and assignments."""
        versions = self.assignments.versions()
        if self.placement is not None:
            versions.append(self.placement.version)
        return max(versions, default=Version())

    @property
    def empty(self) -> bool:
        """Whether nothing is known that would have to be kept."""
        return (
            self.workload is None
            and self.placement is None
            and not self.assignments
            and not self.unreadable
            and not self.observations
            and self.eviction is None
            and self.scale is None
            and not self.pods
        )


def _scaled(workload: Workload | None, scale: int | None) -> Workload | None:
    if workload is None or scale is None or len(workload.components) != 1 or workload.division is not Division.REPLICAS:
        return workload
    return replace(workload, components=(replace(workload.components[0], replicas=max(0, scale)),))


class State:
    """A fresh state knows nothing and decides nothing until it is given `Started`.

    Its tables may be read between calls: `entries` by workload key, `fleet.members` by cluster, `policies`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.fleet = Fleet()
        self.policies = PolicyIndex()
        self.overrides = Overrides()
        self.required_by = RequiredBy()
        self.resource_policies: dict[str, dict[str, ResourcePolicy]] = {}  # namespace, name
        self.priority_classes: dict[str, PriorityClass] = {}
        self.quotas = Quotas()
        self.victims = Victims()
        self.credits = Credits()
        self.ranked = False  # whether priorities differ, so that somebody may be preempted
        self.entries: dict[str, Entry] = {}
        self.candidates = CandidateCache()
        self.mix = Mix(self.fleet.catalog)
        self.queue = Queue(self.settings)
        self.active = False
        self.epoch = 0
        self.log = ""
        self.counter = 0  # of the placements decided under this epoch
        self.frozen = False
        self.thawed_at = float("-inf")
        self.recalled: Recalled | None = None  # in a replay
        # Work of the batch in hand.
        self.settling: tuple[str, Mode] = ("", Mode.FILL)  # the workload that is decided on now, and how
        self.pending: dict[str, Mode] = {}
        self.grown: dict[str, None] = {}  # clusters that may have gained room
        self.moved: deque[str] = deque()  # waits with another priority than its placement says
        self.evicted: list[str] = []  # who lost its place to another
        self.futile: dict[tuple[object, ...], int] = {}  # what found no victims, up to which priority
        # Indexes over the entries.
        self.by_policy: dict[str, set[str]] = {}
        self.on_cluster: defaultdict[str, set[str]] = defaultdict(set)
        self.unmatched: set[str] = set()
        self.in_namespace: dict[str, set[str]] = {}
        self.deadlines: list[tuple[float, str]] = []
        self.timers: list[tuple[float, str]] = []
        self.doubts: dict[tuple[str, str], float] = {}  # until when, by cluster and node class

    def entry(self, key: str) -> Entry:
        """Returns the entry of a workload key; a new one if nothing is known."""
        entry = self.entries.get(key)
        if entry is None:
            entry = self.entries[key] = Entry(key)
        return entry

    def forget(self, entry: Entry) -> None:
        """Drops an entry of which nothing is known any more."""
        if entry.empty and entry.key not in self.pending:
            self.entries.pop(entry.key, None)
            self.victims.forgotten(entry.key)
            self.unmatched.discard(entry.key)

    def placements(self) -> Iterator[Placement]:
        """Yields every placement, ordered by workload."""
        for key in sorted(self.entries):
            placement = self.entries[key].placement
            if placement is not None:
                yield placement

    def verdicts(self) -> dict[str, int]:
        """Returns how many placements there are of each verdict."""
        found: dict[str, int] = {}
        for entry in self.entries.values():
            if entry.placement is not None:
                name = entry.placement.verdict.value
                found[name] = found.get(name, 0) + 1
        return found

    def placement_write(self, key: str) -> PlacementWrite:
        """Returns what the placements topic should hold for a workload; for a write that has failed."""
        entry = self.entries.get(key)
        if entry is None or entry.placement is None:
            return PlacementWrite(key, Version(self.epoch, self.counter), None)
        return PlacementWrite(key, entry.placement.version, entry.placement)

    def assignment_write(self, workload: str, cluster: str) -> AssignmentWrite:
        """Returns what the assignments topic should hold for a workload and a cluster; for a write that has failed."""
        entry = self.entries.get(workload)
        known = entry.assignments.get(cluster) if entry is not None else None
        version = Version(self.epoch, self.counter) if known is None else known.version
        return AssignmentWrite(workload, cluster, version, known)

    def next_version(self) -> Version:
        """Returns a version above every other of this epoch, so that versions order the decisions of a fleet."""
        self.counter += 1
        return Version(self.epoch, self.counter)

    def following_version(self) -> Version:
        """Returns what `next_version` will return."""
        return Version(self.epoch, self.counter + 1)

    def order(self, entry: Entry) -> Order:
        """Returns an entry's place in the queue."""
        workload = self.ranked_as(entry) if self.policies.ranking else entry.current
        rank = priority(workload, self.priority_classes) if workload is not None else 0
        arrival = entry.arrival
        if arrival is None:
            arrival = workload.arrival if workload is not None else 0
        return (-rank, arrival, entry.key)

    def ranked_as(self, entry: Entry) -> Workload | None:
        """Returns a workload with the class that ranks it: that of its policy, if it names one, else its own."""
        workload = entry.current
        if workload is None or not self.policies.ranking:
            return workload
        policy = activation.in_force(self, entry, workload, entry.placement).policy
        if policy is None or not policy.priority_class:
            return workload
        return replace(workload, priority_class=policy.priority_class, priority=None)

    def ask(self, key: str, mode: Mode) -> None:
        """Notes that a workload has to be decided; Fresh goes over Steady over Fill."""
        if mode is Mode.FILL:
            self.pending.setdefault(key, mode)
        elif _STRENGTH[mode] > _STRENGTH.get(self.pending.get(key), -1):
            self.pending[key] = mode


_STRENGTH: dict[Mode | None, int] = {Mode.FILL: 0, Mode.STEADY: 1, Mode.FRESH: 2}
