"""Preemption: the fewest and least that have to go, in one cluster, so that a workload can run (specification 4.3).

Tiers are tried in order. Inside one, the cluster whose highest victim ranks lowest wins, then the least sum of
priorities over the pods that go (as kube-scheduler weighs them), then the fewest workloads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.scheduler.core.claim import Claim
from services.scheduler.core.gang import wanted_by_size
from services.scheduler.core.losses import Cost, Lines, Loss, Preemption, Room, Wanted, cost, lacking
from services.scheduler.core.member import Member
from services.scheduler.core.trial import Trial, free_of, real, scarce
from services.scheduler.core.units import Part, Way
from services.scheduler.core.victims import Rank, Victim, Victims

# How many clusters of a tier, the most promising first, are looked at until the best of them is taken.
_COMPARED = 8
_REFINED = 2
# From so many victims on, the first order that makes room is taken: another one differs little.
_MANY = 32


class Candidate(NamedTuple):
    """A cluster where room may be made: in which way pods land there, and for how many more."""

    member: Member
    way: Way
    limit: int


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for: units of a workload, each of some pods by component, on behalf of a claim.

    ``runs`` has the last word on what is found.
    """

    victims: Victims
    claim: Claim
    key: str
    counts: dict[str, int]
    runs: Callable[[Preemption], bool]
    _empty: dict[tuple[str, frozenset[Rank]], Trial] = field(default_factory=dict)
    _wanted: dict[tuple[int, int], tuple[tuple[Part, ...], Wanted, dict[str, int]]] = field(default_factory=dict)

    def wanted(self, way: Way, units: int) -> tuple[Wanted, dict[str, int]]:
        """Returns the parts of so many units, largest pods first, and what decides of what they need."""
        key = (id(way.parts), units)
        known = self._wanted.get(key)
        if known is None:
            wanted = wanted_by_size(way, {name: count * units for name, count in self.counts.items()})
            known = self._wanted[key] = (way.parts, wanted, scarce(wanted))  # the parts stay, so that the id does
        return known[1], known[2]

    def may_take(self, units: int) -> bool:
        """Returns whether there is anybody from whom may be taken for so many units."""
        return bool(self._allowed(units))

    def best(self, tiers: Iterable[Sequence[Candidate]], units: int) -> Preemption | None:
        """Returns how room for so many units is made, or None."""
        allowed = self._allowed(units)
        if not allowed:
            return None
        for tier in tiers:
            found = self._in_tier(tier, units, allowed)
            if found is not None:
                return found
        return None

    def most(self, tiers: Iterable[Sequence[Candidate]], units: int) -> Preemption | None:
        """Returns how room for as many units as possible, but fewer than asked for, is made in one cluster."""
        allowed = self._allowed(1)
        if not allowed:
            return None
        for tier in tiers:
            rooms = []
            for at in tier:
                wanted, needed = self.wanted(at.way, 1)
                if self._threshold(at.member, wanted, needed, allowed) is not None:
                    rooms.append((-self._at_most(at.member, wanted, needed, allowed), at.member.name, at, wanted))
            rooms.sort(key=lambda item: item[:2])
            for _, _, at, wanted in rooms[:_COMPARED]:
                count = min(units - 1, at.limit, self._without_all(at.member, allowed).room(wanted[0][0]))
                while count > 0:
                    found = self._in_tier([at], count, allowed)
                    if found is not None:
                        return found
                    count //= 2
        return None

    def elsewhere(self, tiers: Iterable[Sequence[Candidate]], units: int, clusters: Iterable[str]) -> Preemption | None:
        """Returns how quota alone is made free: a cluster has room, and somebody anywhere gives its share back."""
        allowed = self._allowed(units)
        if not allowed:
            return None
        sources = list(clusters)
        for tier in tiers:
            for member, way, _ in tier:
                wanted, needed = self.wanted(way, units)
                if wanted and Trial(member).fits(wanted):
                    room = Room(self.claim, member, way, wanted, lacking(member, wanted, needed), units)
                    found = room.choose(self._lines(sources, allowed, by_size=False))
                    return found if found is not None and self.runs(found) else None
        return None

    def _allowed(self, units: int) -> frozenset[Rank]:
        return frozenset(rank for rank in self.victims.ranks() if self.claim.may_take(rank, units, {}))

    def _in_tier(self, tier: Sequence[Candidate], units: int, allowed: frozenset[Rank]) -> Preemption | None:
        promising = []
        for member, way, limit in tier:
            wanted, needed = self.wanted(way, units)
            found = self._threshold(member, wanted, needed, allowed)
            if found is not None and sum([count for _, count in wanted]) <= limit:
                threshold, short = found
                promising.append((threshold, member.name, Room(self.claim, member, way, wanted, short, units)))
        promising.sort(key=lambda item: item[:2])
        rough: list[tuple[Cost, list[Loss], Room]] = []
        for threshold, name, room in promising:
            if rough and (threshold > min(rough, key=_cost_of)[0][0] or len(rough) >= _COMPARED):
                break
            if self._without_all(room.member, allowed).fits(room.wanted):
                losses = self._rough(room, allowed, by_size=False)
                if losses is not None:
                    rough.append((cost(losses, name), losses, room))
        best: Preemption | None = None
        for number, (_, losses, room) in enumerate(sorted(rough, key=_cost_of)):
            few = len(losses) <= _MANY
            if best is not None and (number >= _REFINED or not few):
                break
            for variant in (losses, self._rough(room, allowed, by_size=True) if few else None):
                made = room.settle(variant) if variant is not None else None
                if made is not None and (best is None or made.cost < best.cost) and self.runs(made):
                    best = made
        return best

    def _rough(self, room: Room, allowed: frozenset[Rank], *, by_size: bool) -> list[Loss] | None:
        """Returns whom to take in a cluster, some perhaps in vain: lowest priority first, of equals the last to come.

        ``by_size``: of equals the largest.
        """
        groups = self.victims.groups(room.member.name)
        ranks = [rank for rank in groups if rank in allowed]
        if any(rank.leaf for rank in ranks):
            return room.greedy(self._lines([room.member.name], allowed, by_size=by_size))
        return room.fewest(
            victim
            for rank in sorted(ranks)
            for victim in (sorted(groups[rank].ordered(), key=_largest) if by_size else groups[rank].ordered())
            if victim.key != self.key
        )

    def _threshold(
        self, member: Member, wanted: Wanted, needed: dict[str, int], allowed: frozenset[Rank]
    ) -> tuple[int, dict[str, int]] | None:
        """Returns the lowest priority up to which everybody may have to go, and what is lacking, both going by sums;
        None: it never suffices."""
        groups = self.victims.groups(member.name)
        ranks = [rank for rank in groups if rank in allowed]
        if not ranks or not wanted:
            return None
        member.settle()
        if member.debt:
            return None  # room is owed there already
        short = lacking(member, wanted, needed)
        left = dict(short)
        for rank in sorted(ranks):
            totals = groups[rank].totals
            for name in left:
                left[name] -= totals.get(name, 0)
            if max(left.values(), default=0) <= 0:
                return rank.priority, short
        return None

    def _at_most(self, member: Member, wanted: Wanted, each: dict[str, int], allowed: frozenset[Rank]) -> int:
        """Returns how many units there would be room for without anybody who may be taken, going by sums."""
        there = free_of(member, wanted, each)
        for rank, group in self.victims.groups(member.name).items():
            if rank in allowed:
                for name in there:
                    there[name] += group.totals.get(name, 0)
        return min((there[name] // amount for name, amount in each.items() if amount), default=0)

    def _without_all(self, member: Member, allowed: frozenset[Rank]) -> Trial:
        trial = self._empty.get((member.name, allowed))
        if trial is None:
            trial = self._empty[member.name, allowed] = Trial(member)
            _, gone, vacated = self.victims.without(member.name, allowed)
            trial.without(gone, vacated)
        return trial

    def _lines(self, sources: Sequence[str], allowed: frozenset[Rank], *, by_size: bool) -> Lines:
        """Returns the victims by quota, who goes first last."""
        lines: Lines = {}
        for cluster in sources:
            for rank, group in self.victims.groups(cluster).items():
                if rank in allowed:
                    found = lines.setdefault(rank.leaf, [])
                    found.extend((v, cluster) for v in group.victims.values() if v.key != self.key)
        for line in lines.values():
            line.sort(
                key=lambda item: (
                    -item[0].rank.priority,
                    item[0].pods if by_size else 0,
                    item[0].arrival,
                    item[0].key,
                    item[1],
                )
            )
        return lines


def usable(ways: Iterable[Way]) -> Way | None:
    """Returns the first way that lands on nodes."""
    return next((way for way in ways if real(way)), None)


def _largest(victim: Victim) -> int:
    return -victim.pods


def _cost_of(item: tuple[Cost, list[Loss], Room]) -> Cost:
    return item[0]
