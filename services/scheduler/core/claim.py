"""What a workload that finds no room may take from others, by priority and by quota (specification 4, 13.2).

By priority: who ranks lower. By quota: who uses more than it is guaranteed, as long as the taker stays within its own
guarantee; priority does not matter then. Nothing is taken from a quota that is within its guarantee, except by its own
workloads of higher priority. What a quota itself has borrowed yields to those of its workloads that may not be
preempted and rank no lower, because these keep to the guarantee.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpufleet.model.quota import MAX_JOBS, Amounts
from services.scheduler.core.quota import Quotas
from services.scheduler.core.quota_node import Charge, Node
from services.scheduler.core.shapes import is_gpu
from services.scheduler.core.victims import Rank, Victim

Taken = dict[str, dict[str, int]]  # by quota, by resource


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants room. ``unit`` is what the least of it uses of quota, ``placed`` how many units have a place already.

    ``own`` is what is charged for it now, which counts as free. ``kept`` is what of its quota is kept for somebody who
    goes first.
    """

    quotas: Quotas
    priority: int
    leaf: Node | None = None
    firm: bool = False
    unit: Amounts = ()
    placed: int = 0
    own: Charge | None = None
    job: bool = True
    kept: Amounts = ()

    def may_take(self, rank: Rank, units: int, taken: Taken) -> bool:
        """Returns whether ``units`` more may take from a rank, once ``taken`` is given back."""
        lower = rank.priority < self.priority
        if rank.firm:
            same = self.leaf is not None and rank.leaf == self.leaf.name
            return same and lower and self.firm and self.leaf is not None and self.leaf.quota.preempts_lower
        if self.leaf is not None and rank.leaf == self.leaf.name:
            # What may not be preempted is guaranteed its quota's min, also against what its own quota has borrowed.
            borrowed = self.firm and _over(self.leaf, self.unit, taken.get(self.leaf.name, {}))
            return lower or (borrowed and rank.priority == self.priority)
        if not rank.leaf:
            return lower
        victim = self.quotas.leaf(rank.leaf)
        if victim is None:
            return lower
        mine = self.leaf.path if self.leaf is not None else ()
        below = [node for node in victim.path if node not in mine and node.parent is not None]
        if not all(_over(node, self.unit, taken.get(node.name, {})) for node in below):
            return False
        return lower or self.entitled(units, victim)

    def entitled(self, units: int, other: Node | None = None) -> bool:
        """Returns whether so many more stay within what is guaranteed, below what it shares with another quota."""
        if self.leaf is None:
            return False
        theirs = other.path if other is not None else ()
        return all(self._within(node, units) for node in self.leaf.path if node not in theirs and node.parent)

    def guaranteed(self, most: int) -> int:
        """Returns how many more units are guaranteed, at most so many."""
        return _most(most, lambda units: self.entitled(units, self.quotas.root))

    def inside(self, most: int) -> int:
        """Returns how many more units keep within every quota if nobody gives anything back, at most so many."""
        return _most(most, lambda units: self.fits(units, {}))

    def _within(self, node: Node, units: int) -> bool:
        known = [(name, amount) for name, amount in self.unit if name in node.min]
        if not known or any(is_gpu(name) and name not in node.min for name, _ in self.unit):
            return False
        return all(self._used(node, name, amount, units) <= node.min[name] for name, amount in known)

    def _used(self, node: Node, name: str, amount: int, units: int, *, firm: bool = False) -> int:
        used = node.firm.get(name, 0) if firm else node.used.get(name, 0)
        if self.own is not None and node in self.own.leaf.path and (self.own.firm or not firm):
            used -= dict(self.own.amounts).get(name, 0)
        return used + amount * (self.placed + units)

    def fits(self, units: int, taken: Taken) -> bool:
        """Returns whether so many more keep within every quota, once ``taken`` is given back."""
        if self.leaf is None:
            return True
        kept = dict(self.kept)
        for node in self.leaf.path:
            jobs = node.max.get(MAX_JOBS)
            if jobs is not None and self.job and self.own is None and node.jobs >= jobs:
                return False
            back = taken.get(node.name, {})
            for name, amount in self.unit:
                limit = node.max.get(name)
                used = self._used(node, name, amount, units) - back.get(name, 0)
                if limit is not None and used + node.lent(name, self.leaf.path) + kept.get(name, 0) > limit:
                    return False
                if self.firm:
                    held = self._used(node, name, amount, units, firm=True)
                    if self.leaf.quota.preempts_lower:
                        held -= taken.get(f"firm {node.name}", {}).get(name, 0)
                    if held > node.min.get(name, 0):
                        return False
        return True

    def give_back(self, victim: Victim, units: int, taken: Taken) -> None:
        """Adds what a victim gives back to ``taken``; a negative count takes it away again."""
        leaf = self.quotas.leaf(victim.rank.leaf) if victim.rank.leaf else None
        for node in leaf.path if leaf is not None else ():
            for key in (node.name, f"firm {node.name}") if victim.rank.firm else (node.name,):
                into = taken.setdefault(key, {})
                for name, amount in victim.unit:
                    into[name] = into.get(name, 0) + amount * units

    def share(self, leaf: str, taken: Taken) -> float:
        """Returns a quota's dominant share once ``taken`` is given back: who has most gives first."""
        node = self.quotas.leaf(leaf) if leaf else None
        return node.share(taken.get(leaf, {})) if node is not None else 0.0


def _over(node: Node, wanted: Amounts, taken: Mapping[str, int]) -> bool:
    """Returns whether a quota uses more than it is guaranteed of what is wanted; of GPUs, if they are wanted."""
    names = [name for name, _ in wanted] or list(node.used)
    names = [name for name in names if is_gpu(name)] or names
    return any(node.used.get(name, 0) - taken.get(name, 0) > node.min.get(name, 0) for name in names)


def _most(most: int, holds: Callable[[int], bool]) -> int:
    """Returns the greatest number up to ``most`` for which something holds that holds for all smaller ones; or 0."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
