"""Who could make room: what runs where, by priority and quota, kept only as far as somebody asks.

A workload that changes is only noted; it is looked at again when the next search needs it. So without preemption
nothing is kept but a set of keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gpufleet.model.placement import ClusterShare, Placement
from gpufleet.model.quota import Amounts
from gpufleet.model.reasons import Verdict
from gpufleet.model.workload import Division
from services.scheduler.core.gone import Gone, together
from services.scheduler.core.quota_terms import preemptible
from services.scheduler.core.shapes import Shape
from services.scheduler.core.trial import Vacated
from services.scheduler.core.whereabouts import Piece, pieces

if TYPE_CHECKING:
    from services.scheduler.core.state import Entry, State

_LIVE = (Verdict.SCHEDULED, Verdict.PARTIALLY_SCHEDULED)


class Rank(NamedTuple):
    """Who may be taken by whom depends on nothing else: priority, quota, and whether it may be taken at all."""

    priority: int
    leaf: str
    firm: bool


@dataclass(frozen=True, slots=True)
class Victim:
    """One workload's share of a cluster. ``divisible``: it may lose some of its pods; else it is taken whole.

    ``unit`` is what one pod (or the whole) uses of its quota.
    """

    key: str
    rank: Rank
    arrival: int
    divisible: bool
    pods: int
    pieces: tuple[Piece, ...]
    unit: Amounts = ()

    @property
    def shape(self) -> Shape:
        """The shape of a divisible one's pods."""
        return self.pieces[0].shape


@dataclass(slots=True)
class Group:
    """The victims of one rank in one cluster, their pods, and what these ask for."""

    victims: dict[str, Victim] = field(default_factory=dict)
    in_order: list[Victim] | None = None
    gone: Gone = field(default_factory=Gone)
    totals: dict[str, int] = field(default_factory=dict)

    def ordered(self) -> list[Victim]:
        """Returns the victims in the order in which they go: who came last first."""
        if self.in_order is None:
            self.in_order = sorted(self.victims.values(), key=_last_first)
        return self.in_order


class Empty(NamedTuple):
    """A cluster without anybody of some ranks, and what that makes of its nodes."""

    ranks: frozenset[Rank]
    gone: Gone
    vacated: Vacated


class Victims:
    """An index over placements, by cluster and rank."""

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._ranks: dict[tuple[str, str], Rank] = {}
        self._clusters_of: dict[str, tuple[str, ...]] = {}
        self._groups: dict[str, dict[Rank, Group]] = {}
        self._count: dict[Rank, int] = {}
        self._empty: dict[str, Empty] = {}  # as it was asked for last, until somebody there changes

    def changed(self, key: str) -> None:
        """Notes that a workload's placement, pods or priority may be others now."""
        self._changed.add(key)

    def forgotten(self, key: str) -> None:
        """Notes that nothing is known of a workload any more, so that keys do not pile up while nobody searches."""
        if key not in self._clusters_of:
            self._changed.discard(key)

    def noted(self) -> int:
        """Returns how many workloads have yet to be looked at."""
        return len(self._changed)

    def all_changed(self, keys: Iterable[str]) -> None:
        """Notes that priorities or quotas are others now."""
        self._changed.update(keys)

    def catch_up(self, state: State) -> None:
        """Looks at what has changed."""
        for key in sorted(self._changed):
            self._forget(key)
            entry = state.entries.get(key)
            if entry is not None:
                self._note(state, entry)
        self._changed.clear()

    def ranks(self) -> Iterable[Rank]:
        """Returns every rank that somebody has."""
        return self._count

    def groups(self, cluster: str) -> dict[Rank, Group]:
        """Returns a cluster's victims by rank."""
        return self._groups.get(cluster, {})

    def without(self, cluster: str, allowed: Set[Rank]) -> Empty:
        """Returns a cluster without anybody who may be taken."""
        groups = self.groups(cluster)
        ranks = frozenset(rank for rank in groups if rank in allowed)
        known = self._empty.get(cluster)
        if known is None or known.ranks != ranks:
            gone = together(groups[rank].gone for rank in sorted(ranks))
            known = self._empty[cluster] = Empty(ranks, gone, {})
        return known

    def _forget(self, key: str) -> None:
        for cluster in self._clusters_of.pop(key, ()):
            self._empty.pop(cluster, None)
            rank = self._ranks.pop((key, cluster))
            groups = self._groups[cluster]
            group = groups[rank]
            _add(group, group.victims.pop(key), -1)
            if not group.victims:
                del groups[rank]
            self._count[rank] -= 1
            if not self._count[rank]:
                del self._count[rank]

    def _note(self, state: State, entry: Entry) -> None:
        placement, recalled = entry.placement, state.recalled
        if placement is None or not _takeable(entry, placement):
            return
        clusters = []
        for share in placement.shares:
            if recalled is not None and not recalled.loses(entry.key, share.cluster):
                continue
            found = _victim(state, entry, placement, share)
            if found is None:
                continue
            clusters.append(share.cluster)
            self._empty.pop(share.cluster, None)
            self._ranks[entry.key, share.cluster] = found.rank
            group = self._groups.setdefault(share.cluster, {}).setdefault(found.rank, Group())
            group.victims[entry.key] = found
            _add(group, found, 1)
            self._count[found.rank] = self._count.get(found.rank, 0) + 1
        if clusters:
            self._clusters_of[entry.key] = tuple(clusters)


def _last_first(victim: Victim) -> tuple[int, str]:
    return (-victim.arrival, victim.key)


def _add(group: Group, victim: Victim, sign: int) -> None:
    group.in_order = None
    for piece in victim.pieces:
        if piece.pool:
            group.gone.add(piece.kind, sign)
            for name, amount in piece.shape.pod.requests:
                group.totals[name] = group.totals.get(name, 0) + sign * amount * piece.pods


def _takeable(entry: Entry, placement: Placement) -> bool:
    """Returns whether something of a placement may be taken back and placed again elsewhere."""
    # Copies and static weights are placed whatever room there is, so taking them makes none.
    return (
        entry.current is not None
        and placement.verdict in _LIVE
        and placement.movable
        and not placement.leaving
        and not entry.deleted
        and bool(placement.policy)
    )


def _victim(state: State, entry: Entry, placement: Placement, share: ClusterShare) -> Victim | None:
    workload, member = entry.current, state.fleet.members.get(share.cluster)
    if workload is None or member is None:
        return None
    rule = state.policies.get(placement.policy)
    if rule is not None and (rule.suspend_dispatching or share.cluster in rule.suspend_dispatching_on):
        return None  # nothing is written there, so nothing would go
    found = pieces(state, entry, member, share)
    if not any(piece.pool for piece in found):
        return None
    divisible = (
        len(share.components) == 1
        and workload.division is Division.REPLICAS
        and not workload.job
        and rule is not None
        and not rule.placement.gang
    )
    leaf = state.quotas.leaf_of(workload)
    unit: Amounts = ()
    if leaf is not None:
        counts = {name: 1 if divisible else count for name, count in share.components}
        unit = state.quotas.needs(workload, counts)
    rank = Rank(-state.order(entry)[0], leaf.name if leaf is not None else "", not preemptible(workload))
    arrival = entry.arrival if entry.arrival is not None else workload.arrival
    return Victim(entry.key, rank, arrival, divisible, share.replicas, found, unit)
