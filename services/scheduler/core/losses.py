"""Who yields in one cluster, and how much: enough, and nobody in vain.

The lowest priority goes first, of equals who borrows most of its quota, then who came last. Then everybody who need
not go after all is spared, the most important first. Gangs go whole, Deployments lose replicas.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpufleet.model.placement import Slot
from services.scheduler.core.capacity import Member
from services.scheduler.core.claim import Claim, Taken
from services.scheduler.core.shapes import Shape
from services.scheduler.core.trial import Trial, free_of, scarce
from services.scheduler.core.units import Part, Way
from services.scheduler.core.victims import Victim

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
    """Room in one cluster that others have to make."""

    claim: Claim
    member: Member
    way: Way
    wanted: Wanted
    units: int

    def choose(self, lines: Lines) -> Preemption | None:
        """Returns whom to take of some lines, nobody in vain."""
        losses = self.greedy(lines)
        return None if losses is None else self.settle(losses)

    def settle(self, losses: list[Loss]) -> Preemption | None:
        """Returns the preemption with as few of some losses as it takes, or None if they do not suffice."""
        spared = self._spare(losses)
        slots = self._without(spared)[0].pack(self.wanted, self.way.unit)
        if slots is None:
            return None
        return Preemption(self.member.name, self.units, self.way, slots, tuple(spared))

    def greedy(self, lines: Lines) -> list[Loss] | None:
        """Returns whom to take, in order, until it is enough; None if it never is."""
        claim = self.claim
        losses: dict[tuple[str, str], Loss] = {}
        taken: Taken = {}
        trial = Trial(self.member)
        left = lacking(self.member, self.wanted)
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
            losses[victim.key, cluster] = Loss(victim, cluster, have + pods)
            if cluster == self.member.name:
                _give(trial, victim, have, pods)
                for name in left:
                    left[name] -= _amount(victim, pods, name)
            claim.give_back(victim, pods if victim.divisible else 1, taken)

    def _enough(self, trial: Trial, taken: Taken) -> bool:
        return self.claim.fits(self.units, taken) and trial.fits(self.wanted)

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

    def _spare(self, losses: list[Loss]) -> list[Loss]:
        """Returns the losses without those that are not needed after all, the most important spared first."""
        kept = sorted(losses, key=lambda loss: (-loss.victim.rank.priority, loss.victim.arrival, loss.victim.key))
        surplus = {name: -amount for name, amount in lacking(self.member, self.wanted).items()}
        for loss in kept:
            if loss.cluster == self.member.name:
                for name in surplus:
                    surplus[name] += _amount(loss.victim, loss.pods, name)
        for loss in list(kept):
            here = loss.cluster == self.member.name
            least = 1 if loss.victim.divisible else loss.pods
            if here and any(_amount(loss.victim, least, name) > more for name, more in surplus.items()):
                continue
            others = [other for other in kept if other is not loss]
            low, high = (0, loss.pods) if loss.victim.divisible else (loss.pods - 1, loss.pods)
            while low < high:
                middle = (low + high) // 2
                less = (
                    [*others, Loss(loss.victim, loss.cluster, middle)] if loss.victim.divisible and middle else others
                )
                low, high = (low, middle) if self._enough(*self._without(less)) else (middle + 1, high)
            if high == loss.pods:
                continue
            left = high if loss.victim.divisible else 0
            kept = [*others, Loss(loss.victim, loss.cluster, left)] if left else others
            if here:
                for name in surplus:
                    surplus[name] -= _amount(loss.victim, loss.pods - left, name)
        return kept

    def _without(self, losses: Iterable[Loss]) -> tuple[Trial, Taken]:
        trial = Trial(self.member)
        taken: Taken = {}
        for loss in losses:
            if loss.cluster == self.member.name:
                _give(trial, loss.victim, 0, loss.pods)
            self.claim.give_back(loss.victim, loss.pods if loss.victim.divisible else 1, taken)
        return trial, taken


def lacking(member: Member, wanted: Wanted) -> dict[str, int]:
    """Returns how much more than is free some pods need of what decides, going by sums."""
    needed = scarce(wanted)
    free = free_of(member, wanted, needed)
    return {name: amount - free[name] for name, amount in needed.items()}


def _amount(victim: Victim, pods: int, name: str) -> int:
    """Returns what some pods of a victim give back of a resource, at most."""
    if not victim.divisible:
        return sum(piece.pods * amount_of(piece.shape, name) for piece in victim.pieces)
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
