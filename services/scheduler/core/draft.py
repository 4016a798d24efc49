"""A decision in the making: what the steps hand on to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpufleet.model.placement import ClusterShare, Slot, UnitWait
from gpufleet.model.policy import PropagationPolicy, ResourcePolicy
from gpufleet.model.quota import Amounts
from gpufleet.model.reasons import Code, Reason
from gpufleet.model.workload import Workload
from services.scheduler.core.booking import Made
from services.scheduler.core.columns import Counts
from services.scheduler.core.divide import Mode, Option
from services.scheduler.core.filter import Candidates
from services.scheduler.core.gang import least
from services.scheduler.core.member import Member
from services.scheduler.core.quota_node import Node
from services.scheduler.core.seen import Seen
from services.scheduler.core.state import Entry, State
from services.scheduler.core.unit_use import Usage
from services.scheduler.core.units import Part, Way


@dataclass(slots=True)
class TierRoom:
    """Further room of the clusters of a tier, by their place in it; none of them has any replicas yet.

    ``stock`` None: nodes that could be created do not count. ``coming`` is how much of it is on nodes that somebody
    needs anyway; None: nothing.
    """

    number: int
    members: tuple[Member, ...]
    running: Counts
    stock: Counts | None
    coming: Counts | None = None

    def options(self) -> list[Option]:
        """Returns the options that the columns stand for."""
        stock = self.stock.tolist() if self.stock is not None else [0] * len(self.members)
        coming = self.coming.tolist() if self.coming is not None else [0] * len(self.members)
        return [
            Option(member.name, self.number, 0, running, more, coming=first)
            for member, running, more, first in zip(self.members, self.running.tolist(), stock, coming, strict=True)
        ]

    def total(self) -> Counts:
        """Returns running room and stock together."""
        return self.running if self.stock is None else self.running + self.stock


@dataclass(slots=True)
class Draft:
    """``before`` are the shares that count as placed: the last decision's, less what an eviction takes back.

    ``caps`` bound replicas by cluster; ``refused`` gives the reason by cluster that refused it for good; ``counts``
    are replicas by cluster as divided (duplicated: of one copy), None while undecided or if nothing may change.
    ``frozen`` names clusters that keep what they have but get no more.
    ``limit`` bounds the pods in all, because the quota ``leaf`` has no more; ``unit`` is what the least of it uses of
    quota; ``quota`` says why it is bounded, None if it is not.
    ``units`` is the ResourcePolicy that governs the workload; ``rejected`` the label that it asks for in vain;
    ``waited`` says since when pods wait in a unit (by cluster and unit), ``stopped`` in which unit of a cluster
    they have to stop now. ``usage`` is what other workloads use of the units, None before it is counted.
    ``rooms`` are the options as columns, as long as nobody has asked for them one by one; ``divided`` is how they were
    divided, as long as ``counts`` are these.
    ``seen`` are notes for whoever makes the decision again.
    ``slots`` are given only by a packing; ``taken`` names clusters whose pools were taken from for new slots alone.
    """

    state: State
    entry: Entry
    workload: Workload
    policy: PropagationPolicy
    mode: Mode
    now: float
    before: dict[str, ClusterShare]
    caps: dict[str, int]
    refused: dict[str, Reason]
    ways: tuple[Way, ...]
    candidates: Candidates
    without_stock: bool = False  # tried first, where others have to yield before nodes are created
    blocked: str = ""  # why no new replicas may be placed now, if so
    unmet: bool = False  # the spread constraints cannot be met, so nothing is given anywhere
    rooms: list[TierRoom] | None = None
    _options: list[Option] = field(default_factory=list)
    group: str = ""  # which priority group takes everything, if one does
    way_of: dict[str, Way] = field(default_factory=dict)
    counts: dict[str, int] | None = None
    slots: dict[str, tuple[Slot, ...]] = field(default_factory=dict)
    shares: tuple[ClusterShare, ...] = ()
    replicas: int = 0
    reasons: list[Reason] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    leaf: Node | None = None
    unit: Amounts = ()
    limit: int | None = None
    quota: Code | None = None
    units: ResourcePolicy | None = None
    rejected: str = ""
    kept: Reason | None = None  # the cluster that is kept for somebody before it, and what that leaves
    waited: dict[tuple[str, str], float] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    unit_waits: tuple[UnitWait, ...] = ()
    usage: Usage | None = None
    divided: tuple[dict[str, int], list[tuple[Member, int]]] | None = None
    unnamed: dict[Code, int] = field(default_factory=dict)  # clusters that have no reason of their own, by code
    made: Made | None = None  # what is booked, with the holds, of shares that are all new
    terminating: dict[tuple[str, str], int] = field(default_factory=dict)  # pods by cluster and unit, as far as asked
    seen: Seen = field(default_factory=Seen)

    @property
    def options(self) -> list[Option]:
        """The candidates with their room, in order of tier and name."""
        if self.rooms is not None:
            self._options = [option for room in self.rooms for option in room.options()]
            self.rooms = None
        return self._options

    @options.setter
    def options(self, options: list[Option]) -> None:
        self.rooms = None
        self._options = options

    @property
    def measured(self) -> list[Option] | None:
        """The candidates with their room, if they were looked at one by one."""
        return self._options if self.rooms is None else None

    def room_of(self, member: Member) -> int:
        """Returns further room of a candidate as it was measured, 0 for others."""
        if self.rooms is None:
            return next((o.running + o.stock for o in self._options if o.cluster == member.name), 0)
        for room in self.rooms:
            places = (self.candidates.tiers[room.number].indexes == member.index).nonzero()[0]
            if len(places):
                return int(room.total()[places[0]])
        return 0

    def with_room(self, below: int, counts: Mapping[str, int]) -> set[str]:
        """Returns the candidates of the tiers above one that have more room than they were given."""
        if self.rooms is None:
            return {
                o.cluster
                for o in self._options
                if o.tier < below and o.assigned + o.running + o.stock > counts.get(o.cluster, 0)
            }
        found: set[str] = set()
        for room in self.rooms:
            if room.number < below:
                total = room.total()
                for place in total.nonzero()[0].tolist():
                    name = room.members[place].name
                    if total[place] > counts.get(name, 0):
                        found.add(name)
        return found

    @property
    def stock(self) -> bool:
        """Whether nodes that could be created count as room."""
        return self.policy.ecs_provision and not self.without_stock

    @property
    def uid(self) -> str:
        """The UID that breaks ties."""
        return self.workload.uid

    def member(self, cluster: str) -> Member:
        """Returns a cluster."""
        return self.state.fleet.members[cluster]

    def tier_of(self, cluster: str) -> int | None:
        """Returns the tier of a cluster, or None if the policy does not mean it.

        A cluster whose registration is missing, but was never deleted, keeps what it has in the last tier.
        """
        tier = self.candidates.tier_of.get(cluster)
        if tier is None and self.state.fleet.member(cluster).spec is None:
            return len(self.candidates.tiers) - 1
        return tier

    def wanted(self, way: Way, *, one: bool) -> list[tuple[Part, int]]:
        """Returns the parts of a way with one pod each, or with the counts that must start together."""
        counts = {c.name: min(1, c.replicas) for c in self.workload.components} if one else least(self.workload)
        return [(part, counts[part.component]) for part in way.parts if counts.get(part.component, 0) > 0]
