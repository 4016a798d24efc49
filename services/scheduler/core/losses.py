"""Who yields in one cluster, and how much: enough, and nobody in vain.

The lowest priority goes first, of equals who borrows most of its quota, then who came last. Then everybody who need
not go after all is spared, the most important first. Gangs go whole, Deployments lose replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gpufleet.model.placement import Slot
from services.scheduler.core.claim import Claim, Taken
from services.scheduler.core.member import Member
from services.scheduler.core.shapes import Shape
from services.scheduler.core.trial import Trial, free_of
from services.scheduler.core.units import Part, Way
from services.scheduler.core.victims import Victim
from services.scheduler.core.whereabouts import last

# kube-scheduler adds this to each priority, so that one pod more weighs more than any priority.
_OFFSET = 2**31
Wanted = list[tuple[Part, int]]
# The highest priority that goes, the sum of priorities over the pods that go, how many workloads; the cluster's name.
Cost = tuple[int, int, int, str]
# Victims by quota with their cluster; who goes first is last.
Lines = dict[str, list[tuple[Victim, str]]]


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
    def cost(self) -> Cost:
        """Smaller is better."""
        return cost(self.losses, self.cluster)


@dataclass(frozen=True, slots=True)
class Room:
    """Room in one cluster that others have to make. ``short`` is what is lacking, going by sums (`lacking`)."""

    claim: Claim
    member: Member
    way: Way
    wanted: Wanted
    short: Mapping[str, int]
    units: int

    def choose(self, lines: Lines) -> Preemption | None:
        """Returns whom to take of some lines, nobody in vain."""
        losses = self.greedy(lines)
        return None if losses is None else self.settle(losses)

    def settle(self, losses: list[Loss]) -> Preemption | None:
        """Returns the preemption with as few of some losses as it takes, or None if they do not suffice."""
        trial, taken = Trial(self.member), Taken()
        for loss in losses:
            self._change(trial, taken, loss, 0, loss.pods)
        spared = self._spare(losses, trial, taken)
        slots = trial.pack(self.wanted, self.way.unit)
        if slots is None:
            return None
        marked = tuple(replace(slot, variant=self.way.variant) for slot in slots)
        return Preemption(self.member.name, self.units, self.way, marked, tuple(spared))

    def greedy(self, lines: Lines) -> list[Loss] | None:
        """Returns whom to take, in order, until it is enough; None if it never is."""
        claim = self.claim
        losses: dict[tuple[str, str], Loss] = {}
        trial, taken = Trial(self.member), Taken()
        left = dict(self.short)
        pause = 0
        while True:
            if pause:
                pause -= 1
            elif all(amount <= 0 for amount in left.values()) and claim.fits(self.units, taken):
                if trial.fits(self.wanted):
                    return list(losses.values())
                pause = len(losses) // 4  # what is too much is spared afterwards
            line = self._next(lines, taken)
            if line is None:
                return list(losses.values()) if pause and self._enough(trial, taken) else None
            victim, cluster = line[-1]
            known = losses.get((victim.key, cluster))
            # With quotas a replica at a time, so that who has most of it changes as they go.
            pods = 1 if victim.divisible and victim.rank.leaf else victim.pods
            have = known.pods if known is not None else 0
            if have + pods >= victim.pods:
                line.pop()
            loss = losses[victim.key, cluster] = Loss(victim, cluster, have + pods)
            self._change(trial, taken, loss, have, have + pods)
            if cluster == self.member.name:
                for name in left:
                    left[name] -= _amount(victim, pods, name)

    def fewest(self, victims: Iterable[Victim]) -> list[Loss] | None:
        """Returns the first of some victims of this cluster that make room, where nobody's quota has a say."""
        if not self.claim.fits(self.units, {}):
            return None
        left, trial, rest = dict(self.short), Trial(self.member), iter(victims)
        losses: list[Loss] = []
        count = 0

        def go(to: int) -> bool:
            nonlocal count
            while len(losses) < to and (victim := next(rest, None)) is not None:
                losses.append(Loss(victim, self.member.name, victim.pods))
            for loss in losses[count:to]:
                _without(trial, loss.victim, 0, loss.pods)
            for loss in losses[to:count]:
                _without(trial, loss.victim, loss.pods, 0)
            count = min(to, len(losses))
            return trial.fits(self.wanted)

        while any(amount > 0 for amount in left.values()):
            victim = next(rest, None)
            if victim is None:
                return None
            losses.append(Loss(victim, self.member.name, victim.pods))
            for name in left:
                left[name] -= _amount(victim, victim.pods, name)
        low, high = len(losses), len(losses)
        while not go(high):
            if count < high:
                return None
            low, high = high, 2 * high + 1
        high = count
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (low, middle) if go(middle) else (middle, high)
        return losses[:high]

    def _enough(self, trial: Trial, taken: Taken) -> bool:
        return self.claim.fits(self.units, taken) and trial.fits(self.wanted)

    def _change(self, trial: Trial, taken: Taken, loss: Loss, before: int, after: int) -> None:
        """Has a victim lose so many pods where it lost so many before."""
        victim = loss.victim
        if loss.cluster == self.member.name:
            _without(trial, victim, before, after)
        if victim.rank.leaf:
            units = after - before if victim.divisible else (after > before) - (after < before)
            self.claim.give_back(victim, units, taken)

    def _next(self, lines: Lines, taken: Taken) -> list[tuple[Victim, str]] | None:
        """Returns the line whose last goes next."""
        claim = self.claim
        best: list[tuple[Victim, str]] | None = None
        first: tuple[int, float, int] | None = None
        for leaf, line in lines.items():
            while line and leaf and not claim.may_take(line[-1][0].rank, self.units, taken):
                line.pop()
            if line:
                victim = line[-1][0]
                order = (victim.rank.priority, -claim.share(leaf, taken), -victim.arrival)
                if first is None or order < first:
                    best, first = line, order
        return best

    def _spare(self, losses: list[Loss], trial: Trial, taken: Taken) -> list[Loss]:
        """Returns the losses without those that are not needed after all, the most important spared first.

        ``trial`` and ``taken`` are with all of them, and afterwards with those that are left.
        """
        surplus = {name: -amount for name, amount in self.short.items()}
        for loss in losses:
            if loss.cluster == self.member.name:
                for name in surplus:
                    surplus[name] += _amount(loss.victim, loss.pods, name)
        kept: list[Loss] = []
        # Who is needed: nobody alike can be spared later, when less is given back.
        needed: set[tuple[object, ...]] = set()
        for loss in sorted(losses, key=_most_important):
            victim, here = loss.victim, loss.cluster == self.member.name
            least = 1 if victim.divisible else loss.pods
            alike = (here, victim.pieces, victim.divisible, loss.pods, victim.rank.leaf, victim.unit)
            if alike in needed or (here and any(_amount(victim, least, name) > more for name, more in surplus.items())):
                kept.append(loss)
                continue
            tried, low, left = 0, 1 if victim.divisible else loss.pods, loss.pods
            self._change(trial, taken, loss, loss.pods, tried)
            if self._enough(trial, taken):
                left = low = tried
            while low < left:
                before, tried = tried, (low + left) // 2
                self._change(trial, taken, loss, before, tried)
                low, left = (low, tried) if self._enough(trial, taken) else (tried + 1, left)
            self._change(trial, taken, loss, tried, left)
            if left == loss.pods:
                needed.add(alike)
            if left:
                kept.append(Loss(victim, loss.cluster, left))
            if here:
                for name in surplus:
                    surplus[name] -= _amount(victim, loss.pods - left, name)
        return kept


def _most_important(loss: Loss) -> tuple[int, int, str]:
    return (-loss.victim.rank.priority, loss.victim.arrival, loss.victim.key)


def lacking(member: Member, wanted: Wanted, needed: Mapping[str, int]) -> dict[str, int]:
    """Returns how much more than is free some pods need of what decides (``needed``: `scarce`), going by sums."""
    free = free_of(member, wanted, needed)
    return {name: amount - free[name] for name, amount in needed.items()}


def _amount(victim: Victim, pods: int, name: str) -> int:
    """Returns what some pods of a victim give back of a resource, at most."""
    if not victim.divisible and pods:
        return sum(piece.pods * amount_of(piece.shape, name) for piece in victim.pieces if piece.pool)
    return pods * amount_of(victim.shape, name)


def amount_of(shape: Shape, name: str) -> int:
    """Returns what one pod asks for of a resource."""
    return next((amount for known, amount in shape.pod.requests if known == name), 0)


def cost(losses: Iterable[Loss], cluster: str) -> Cost:
    """Returns what losses cost, to compare: smaller is better."""
    highest, total, count = -_OFFSET, 0, 0
    for loss in losses:
        highest = max(highest, loss.victim.rank.priority)
        total += loss.pods * (loss.victim.rank.priority + _OFFSET)
        count += 1
    return (highest, total, count, cluster)


def _without(trial: Trial, victim: Victim, before: int, after: int) -> None:
    """Takes away so many pods of a victim in place of so many."""
    for pods, times in ((before, -1), (after, 1)):
        if pods:
            for piece in last(victim.pieces, pods):
                trial.change(piece.kind, times)
