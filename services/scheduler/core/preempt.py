"""Preemption: the fewest and least that have to go, in one cluster, so that a workload can run (specification 4.3).

Tiers are tried in order. Inside one, the cluster whose highest victim ranks lowest wins, then the least sum of
priorities over the pods that go (as kube-scheduler weighs them), then the fewest workloads. In a cluster the lowest
priority goes first, of equals who borrows most of its quota, then who came last; then everybody who need not go after
all is spared, the most important first. Gangs go whole, Deployments lose replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpufleet.model.placement import Slot
from services.scheduler.core.capacity import Member
from services.scheduler.core.claim import Claim, Taken
from services.scheduler.core.gang import wanted_by_size
from services.scheduler.core.trial import Trial, real
from services.scheduler.core.units import Part, Way
from services.scheduler.core.victims import Group, Rank, Victim, Victims

# How many clusters of a tier, the most promising first, are looked at until the best of them is taken.
_COMPARED = 8
# kube-scheduler adds this to each priority, so that one pod more weighs more than any priority.
_OFFSET = 2**31
Wanted = list[tuple[Part, int]]


@dataclass(frozen=True, slots=True)
class Loss:
    """How many pods a victim loses in a cluster."""

    victim: Victim
    cluster: str
    pods: int


@dataclass(frozen=True, slots=True)
class Preemption:
    """Where room is made, for how many units, by whose loss, and where they go then."""

    cluster: str
    units: int
    way: Way
    slots: tuple[Slot, ...]
    losses: tuple[Loss, ...]

    @property
    def cost(self) -> tuple[int, int, int, str]:
        """Smaller is better."""
        highest = max((loss.victim.rank.priority for loss in self.losses), default=-_OFFSET)
        total = sum(loss.pods * (loss.victim.rank.priority + _OFFSET) for loss in self.losses)
        return (highest, total, len(self.losses), self.cluster)


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for: units of a workload, each of some pods by component, on behalf of a claim."""

    victims: Victims
    claim: Claim
    key: str
    counts: dict[str, int]

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
                if self._threshold(member, wanted, allowed) is None:
                    continue
                trial = Trial(member)
                for rank in allowed:
                    self._give_group(trial, self.victims.groups(member.name).get(rank))
                rooms.append((-min(units - 1, way.limit, trial.room(wanted[0][0])), member.name, member, way))
            for room, _, member, way in sorted(rooms, key=lambda item: item[:2])[:_COMPARED]:
                for count in range(-room, 0, -1):
                    found = self._in_tier([(member, way)], count, allowed)
                    if found is not None:
                        return found
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
                wanted = self.wanted(way, units)
                if Trial(member).fits(wanted):
                    return self._choose(member, way, wanted, units, allowed, sources, by_size=False)
        return None

    def _allowed(self, units: int) -> frozenset[Rank]:
        return frozenset(rank for rank in self.victims.ranks() if self.claim.may_take(rank, units, {}))

    def _in_tier(self, tier: Sequence[tuple[Member, Way]], units: int, allowed: frozenset[Rank]) -> Preemption | None:
        promising = []
        for member, way in tier:
            wanted = self.wanted(way, units)
            threshold = self._threshold(member, wanted, allowed)
            if threshold is not None and sum(count for _, count in wanted) <= way.limit:
                promising.append((threshold, member.name, member, way, wanted))
        promising.sort(key=lambda item: item[:2])
        best: Preemption | None = None
        compared = 0
        for threshold, name, member, way, wanted in promising:
            if best is not None and (threshold > best.cost[0] or compared >= _COMPARED):
                break
            if not self._possible(member, wanted, allowed):
                continue
            compared += 1
            for by_size in (False, True):
                found = self._choose(member, way, wanted, units, allowed, [name], by_size=by_size)
                if found is not None and (best is None or found.cost < best.cost):
                    best = found
        return best

    def _threshold(self, member: Member, wanted: Wanted, allowed: frozenset[Rank]) -> int | None:
        """Returns the lowest priority up to which everybody may have to go, going by sums; None: it never suffices."""
        groups = self.victims.groups(member.name)
        ranks = sorted(rank for rank in groups if rank in allowed)
        if not ranks:
            return None
        member.settle()
        if member.debt:
            return None  # room is owed there already
        needed: dict[str, int] = {}
        for part, count in wanted:
            for name, amount in part.shape.pod.requests:
                needed[name] = needed.get(name, 0) + amount * count
        free = Trial(member).free(wanted)
        left = {name: amount - free.get(name, 0) for name, amount in needed.items() if name in free}
        for rank in ranks:
            for name in left:
                left[name] -= groups[rank].totals.get(name, 0)
            if all(amount <= 0 for amount in left.values()):
                return rank.priority
        return None

    def _possible(self, member: Member, wanted: Wanted, allowed: frozenset[Rank]) -> bool:
        trial = Trial(member)
        for rank, group in sorted(self.victims.groups(member.name).items(), key=lambda item: item[0]):
            if rank in allowed:
                self._give_group(trial, group)
        return trial.fits(wanted)

    @staticmethod
    def _give_group(trial: Trial, group: Group | None) -> None:
        for (pool, shape), count in group.held.items() if group is not None else ():
            trial.give(pool, shape, count)

    def _choose(
        self,
        member: Member,
        way: Way,
        wanted: Wanted,
        units: int,
        allowed: frozenset[Rank],
        sources: Sequence[str],
        *,
        by_size: bool,
    ) -> Preemption | None:
        """Returns whom to take in some clusters, nobody in vain; only those of the member itself make room there."""
        lines = self._lines(sources, allowed, by_size=by_size)
        losses: dict[tuple[str, str], Loss] = {}
        taken: Taken = {}
        trial = Trial(member)

        def enough(here: Trial, given: Taken) -> bool:
            return self.claim.fits(units, given) and here.fits(wanted)

        while not enough(trial, taken):
            line = self._next(lines, units, taken)
            if line is None:
                return None
            victim, cluster = line[-1]
            known = losses.get((victim.key, cluster))
            # With quotas a replica at a time, so that who has most of it changes as they go.
            pods = 1 if victim.divisible and victim.rank.leaf else victim.pods
            have = known.pods if known is not None else 0
            if have + pods >= victim.pods:
                line.pop()
            losses[victim.key, cluster] = Loss(victim, cluster, have + pods)
            if cluster == member.name:
                _give(trial, victim, have, pods)
            self.claim.give_back(victim, pods if victim.divisible else 1, taken)
        spared = self._spare(member, list(losses.values()), enough)
        trial = self._without(member, spared)[0]
        slots = trial.pack(wanted, way.unit)
        if slots is None:
            return None
        return Preemption(member.name, units, way, slots, tuple(spared))

    def _lines(
        self, sources: Sequence[str], allowed: frozenset[Rank], *, by_size: bool
    ) -> dict[str, list[tuple[Victim, str]]]:
        """Returns the victims by quota, who goes first last."""
        lines: dict[str, list[tuple[Victim, str]]] = {}
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

    def _next(
        self, lines: dict[str, list[tuple[Victim, str]]], units: int, taken: Taken
    ) -> list[tuple[Victim, str]] | None:
        """Returns the line whose last goes next."""
        best: list[tuple[Victim, str]] | None = None
        first: tuple[int, float, int] | None = None
        for leaf, line in lines.items():
            while line and not self.claim.may_take(line[-1][0].rank, units, taken):
                line.pop()
            if line:
                victim = line[-1][0]
                order = (victim.rank.priority, -self.claim.share(leaf, taken), -victim.arrival)
                if first is None or order < first:
                    best, first = line, order
        return best

    def _spare(self, member: Member, losses: list[Loss], enough: Callable[[Trial, Taken], bool]) -> list[Loss]:
        """Returns the losses without those that are not needed after all, the most important spared first."""
        kept = sorted(losses, key=lambda loss: (-loss.victim.rank.priority, loss.victim.arrival, loss.victim.key))
        for loss in list(kept):
            index = kept.index(loss)
            others = kept[:index] + kept[index + 1 :]
            low, high = 0, loss.pods
            if not loss.victim.divisible:
                if enough(*self._without(member, others)):
                    kept = others
                continue
            while low < high:
                middle = (low + high) // 2
                less = [*others, Loss(loss.victim, loss.cluster, middle)] if middle else others
                low, high = (low, middle) if enough(*self._without(member, less)) else (middle + 1, high)
            if high:
                kept[index] = Loss(loss.victim, loss.cluster, high)
            else:
                kept = others
        return kept

    def _without(self, member: Member, losses: Iterable[Loss]) -> tuple[Trial, Taken]:
        trial = Trial(member)
        taken: Taken = {}
        for loss in losses:
            if loss.cluster == member.name:
                _give(trial, loss.victim, 0, loss.pods)
            self.claim.give_back(loss.victim, loss.pods if loss.victim.divisible else 1, taken)
        return trial, taken


def _give(trial: Trial, victim: Victim, before: int, pods: int) -> None:
    """Takes away some pods of a victim, after so many others of it: from its last node class on."""
    skip, left = before, pods
    for piece in reversed(victim.pieces):
        here = max(0, piece.pods - skip)
        skip = max(0, skip - piece.pods)
        count = min(here, left)
        if count:
            trial.give(piece.pool, piece.shape, count)
            left -= count


def usable(ways: Iterable[Way]) -> Way | None:
    """Returns the first way that lands on nodes."""
    return next((way for way in ways if real(way)), None)
