"""Preemption: the fewest and least that have to go, in one cluster, so that a workload can run (specification 4.3).

Tiers are tried in order. Inside one, the cluster whose highest victim ranks lowest wins, then the least sum of
priorities over the pods that go (as kube-scheduler weighs them), then the fewest workloads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.scheduler.core.capacity import Member
from services.scheduler.core.claim import Claim
from services.scheduler.core.gang import wanted_by_size
from services.scheduler.core.losses import Cost, Lines, Loss, Preemption, Room, Wanted, cost, lacking
from services.scheduler.core.trial import Trial, free_of, real, scarce
from services.scheduler.core.units import Way
from services.scheduler.core.victims import Rank, Victims

# How many clusters of a tier, the most promising first, are looked at until the best of them is taken.
_COMPARED = 8
_REFINED = 2


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for: units of a workload, each of some pods by component, on behalf of a claim."""

    victims: Victims
    claim: Claim
    key: str
    counts: dict[str, int]
    _empty: dict[tuple[str, frozenset[Rank]], Trial] = field(default_factory=dict)

    def wanted(self, way: Way, units: int) -> Wanted:
        """Returns the parts of so many units, largest pods first."""
        return wanted_by_size(way, {name: count * units for name, count in self.counts.items()})

    def best(self, tiers: Iterable[Sequence[tuple[Member, Way]]], units: int) -> Preemption | None:
        """Returns how room for so many units is made, or None."""
        allowed = self._allowed(units)
        if not allowed:
            return None
        for tier in tiers:
            found = self._in_tier(tier, units, allowed)
            if found is not None:
                return found
        return None

    def most(self, tiers: Iterable[Sequence[tuple[Member, Way]]], units: int) -> Preemption | None:
        """Returns how room for as many units as possible, but fewer than asked for, is made in one cluster."""
        allowed = self._allowed(1)
        if not allowed:
            return None
        for tier in tiers:
            rooms = []
            for member, way in tier:
                wanted = self.wanted(way, 1)
                if self._threshold(member, wanted, allowed) is not None:
                    rooms.append((-self._at_most(member, wanted, allowed), member.name, member, way, wanted))
            for _, _, member, way, wanted in sorted(rooms, key=lambda item: item[:2])[:_COMPARED]:
                count = min(units - 1, way.limit, self._without_all(member, allowed).room(wanted[0][0]))
                while count > 0:
                    found = self._in_tier([(member, way)], count, allowed)
                    if found is not None:
                        return found
                    count //= 2
        return None

    def elsewhere(
        self, tiers: Iterable[Sequence[tuple[Member, Way]]], units: int, clusters: Iterable[str]
    ) -> Preemption | None:
        """Returns how quota alone is made free: a cluster has room, and somebody anywhere gives its share back."""
        allowed = self._allowed(units)
        if not allowed:
            return None
        sources = list(clusters)
        for tier in tiers:
            for member, way in tier:
                room = Room(self.claim, member, way, self.wanted(way, units), units)
                if room.wanted and Trial(member).fits(room.wanted):
                    return room.choose(self._lines(sources, allowed, by_size=False))
        return None

    def _allowed(self, units: int) -> frozenset[Rank]:
        return frozenset(rank for rank in self.victims.ranks() if self.claim.may_take(rank, units, {}))

    def _in_tier(self, tier: Sequence[tuple[Member, Way]], units: int, allowed: frozenset[Rank]) -> Preemption | None:
        promising = []
        for member, way in tier:
            wanted = self.wanted(way, units)
            threshold = self._threshold(member, wanted, allowed)
            if threshold is not None and sum(count for _, count in wanted) <= way.limit:
                promising.append((threshold, member.name, Room(self.claim, member, way, wanted, units)))
        promising.sort(key=lambda item: item[:2])
        rough: list[tuple[Cost, list[Loss], Room]] = []
        for threshold, name, room in promising:
            if rough and (threshold > min(rough, key=_cost_of)[0][0] or len(rough) >= _COMPARED):
                break
            if self._without_all(room.member, allowed).fits(room.wanted):
                losses = room.greedy(self._lines([name], allowed, by_size=False))
                if losses is not None:
                    rough.append((cost(losses, name), losses, room))
        best: Preemption | None = None
        for _, losses, room in sorted(rough, key=_cost_of)[:_REFINED]:
            variants = [losses, room.greedy(self._lines([room.member.name], allowed, by_size=True))]
            for variant in variants:
                found = room.settle(variant) if variant is not None else None
                if found is not None and (best is None or found.cost < best.cost):
                    best = found
        return best

    def _threshold(self, member: Member, wanted: Wanted, allowed: frozenset[Rank]) -> int | None:
        """Returns the lowest priority up to which everybody may have to go, going by sums; None: it never suffices."""
        groups = self.victims.groups(member.name)
        ranks = sorted(rank for rank in groups if rank in allowed)
        if not ranks or not wanted:
            return None
        member.settle()
        if member.debt:
            return None  # room is owed there already
        left = lacking(member, wanted)
        for rank in ranks:
            totals = groups[rank].totals
            for name in left:
                left[name] -= totals.get(name, 0)
            if all(amount <= 0 for amount in left.values()):
                return rank.priority
        return None

    def _at_most(self, member: Member, wanted: Wanted, allowed: frozenset[Rank]) -> int:
        """Returns how many units there would be room for without anybody who may be taken, going by sums."""
        each = scarce(wanted)
        there = free_of(member, wanted, each)
        for rank, group in self.victims.groups(member.name).items():
            if rank in allowed:
                for name in there:
                    there[name] += group.totals.get(name, 0)
        return min((there[name] // amount for name, amount in each.items() if amount), default=0)

    def _without_all(self, member: Member, allowed: frozenset[Rank]) -> Trial:
        trial = self._empty.get((member.name, allowed))
        if trial is not None:
            return trial
        trial = self._empty[member.name, allowed] = Trial(member)
        for rank, group in sorted(self.victims.groups(member.name).items(), key=lambda item: item[0]):
            if rank in allowed:
                for (pool, shape), count in group.held.items():
                    trial.give(pool, shape, count)
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


def _cost_of(item: tuple[Cost, list[Loss], Room]) -> Cost:
    return item[0]
