"""A workload that waits, and the trials of what would place it: each is a plan of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from gpufleet.model.placement import Placement
from gpufleet.model.reasons import Code, Verdict
from gpufleet.wire.documents import Parsed, PlacementDocument
from sim.plan import plan

# With so many workloads that have no place among the documents, those that wait are left out of the trials.
_TOGETHER = 200
# How many more than would do alone are tried where others wait.
_MOST_TOGETHER = 10_000

Change = Callable[[Parsed], Parsed]


class Remedy(NamedTuple):
    """A change, in a few words."""

    text: str
    change: Change


class Sized(NamedTuple):
    """A change of a size from 1 to ``most``, in a few words for each size."""

    text: Callable[[int], str]
    change: Callable[[Parsed, int], Parsed]
    most: int


def same(parsed: Parsed) -> Parsed:
    """Returns the documents as they are."""
    return parsed


@dataclass(frozen=True, slots=True)
class Case:
    """``alone`` are the documents without the other workloads that wait, ``together`` with them (None: none do, or
    too many); ``now`` is what is decided alone. What has a place keeps it in both."""

    workload: str
    now: Placement
    alone: Parsed
    together: Parsed | None
    others: int  # the pods of those that wait

    def named(self, codes: Iterable[Code]) -> list[str]:
        """Returns the clusters that are named with one of some reasons."""
        wanted = set(codes)
        return list(dict.fromkeys(r.cluster for r in self.now.reasons if r.cluster and r.code in wanted))

    def has(self, *codes: Code) -> bool:
        """Returns whether one of some reasons is given."""
        return any(reason.code in codes for reason in self.now.reasons)

    def helps(self, change: Change) -> bool:
        """Returns whether a change places the workload, without those that wait."""
        return _helps(change(self.alone), self.workload)

    def told(self, remedy: Remedy) -> str:
        """Returns a remedy in words, with a remark where those that wait would take the room first."""
        if self.together is None or _helps(remedy.change(self.together), self.workload):
            return remedy.text
        return f"{remedy.text} (once those that go before it are placed)"

    def least(self, sized: Sized) -> int | None:
        """Returns the smallest size that places the workload, without those that wait, or None."""
        return _least(lambda count: self.helps(lambda parsed: sized.change(parsed, count)), 1, sized.most)

    def told_of(self, sized: Sized, count: int) -> str:
        """Returns a size in words, and the size that is enough for those that go before it too."""
        text, together = sized.text(count), self.together
        if together is None:
            return text
        most = min(_MOST_TOGETHER, count + self.others)
        more = _least(lambda n: _helps(sized.change(together, n), self.workload), count, most)
        if more == count:
            return text
        return f"{text} ({more} with those that go before it)" if more else self.told(Remedy(text, same))


def case_of(parsed: Parsed, workload: str) -> Case | None:
    """Returns the case of a workload that is not placed, or None."""
    free = [key for key in parsed.workloads if key != workload and not _standing(parsed, key)]
    together = None
    others = 0
    if len(free) <= _TOGETHER:
        found = {placement.workload: placement for placement in plan(parsed)}
        if not _waits(found.get(workload)):
            return None
        # What is placed in this plan has its place, but no pods yet.
        placed = {
            key: PlacementDocument(found[key], tuple((share.cluster, 0) for share in found[key].shares))
            for key in free
            if key in found and found[key].shares
        }
        parsed = replace(parsed, placements={**parsed.placements, **placed})
        waiting = [found[key] for key in free if key not in placed and key in found]
        others = sum(placement.unplaced for placement in waiting)
        together = parsed if others else None
    kept = {key: item for key, item in parsed.workloads.items() if key == workload or _standing(parsed, key)}
    alone = replace(parsed, workloads=kept)
    now = planned(alone, workload)
    if now is None or (together is None and not _waits(now)):
        return None
    return Case(workload, now, alone, together, others)


def planned(parsed: Parsed, workload: str) -> Placement | None:
    """Returns what is planned for a workload."""
    return next((placement for placement in plan(parsed) if placement.workload == workload), None)


def _waits(placement: Placement | None) -> bool:
    return placement is not None and placement.verdict is not Verdict.SCHEDULED


def _standing(parsed: Parsed, key: str) -> bool:
    return key in parsed.placements and bool(parsed.placements[key].placement.shares)


def _helps(parsed: Parsed, workload: str) -> bool:
    return not _waits(planned(parsed, workload))


def _least(helps: Callable[[int], bool], low: int, high: int) -> int | None:
    """Returns the smallest of ``low`` to ``high`` that helps, or None if not even the largest does."""
    if high < low or not helps(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if helps(middle) else (middle + 1, high)
    return low
