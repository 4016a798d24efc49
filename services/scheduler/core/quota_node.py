"""One quota with what it uses, and what a placement is charged for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from gpufleet.model.quota import Amounts, Quota
from gpufleet.model.values import value

NOTHING: Final[Mapping[str, int]] = {}


class Node:
    """One quota with its usage. ``firm`` is the part of ``used`` that cannot be preempted; ``path`` starts here."""

    __slots__ = (
        "_share",
        "blocking",
        "children",
        "firm",
        "jobs",
        "lends",
        "max",
        "min",
        "name",
        "parent",
        "path",
        "priority",
        "quota",
        "used",
    )

    def __init__(self, quota: Quota, parent: Node | None) -> None:
        self.quota = quota
        self.name = quota.name
        self.parent = parent
        self.min = dict(quota.min)
        self.max = dict(quota.max)
        self.used: dict[str, int] = {}
        self.firm: dict[str, int] = {}
        self.jobs = 0
        self.blocking = quota.blocking  # its queue's
        self.priority = 0  # among queues
        self.path: tuple[Node, ...] = (self, *(parent.path if parent is not None else ()))
        self.children = tuple(Node(child, self) for child in quota.children)
        self.lends = any(child.lend_limit is not None for child in quota.children)
        self._share: float | None = None  # until the use changes

    def walk(self) -> Iterator[Node]:
        """Yields this node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def lent(self, resource: str, path: tuple[Node, ...]) -> int:
        """Returns what children beside a path keep for themselves though they do not use it (lend limits)."""
        kept = 0
        for child in self.children if self.lends else ():
            if child.quota.lend_limit is not None and child not in path:
                limit = dict(child.quota.lend_limit).get(resource)
                if limit is not None:
                    kept += max(0, child.min.get(resource, 0) - limit - child.used.get(resource, 0))
        return kept

    def borrows(self, taken: Mapping[str, int] | None = None) -> bool:
        """Returns whether more is used than is guaranteed, once ``taken`` is given back."""
        given = taken or {}
        return any(self.used.get(name, 0) - given.get(name, 0) > low for name, low in self.min.items())

    def share(self, taken: Mapping[str, int] | None = None) -> float:
        """Returns the dominant share: the greatest use against the guarantee; without a guarantee any use is most."""
        if not taken:
            if self._share is None:
                self._share = self._greatest(NOTHING)
            return self._share
        return self._greatest(taken)

    def _greatest(self, given: Mapping[str, int]) -> float:
        most = 0.0
        for name, used in self.used.items():
            low = self.min.get(name)
            left = used - given.get(name, 0)
            if left > 0 and low is not None:
                most = max(most, left / low if low else float("inf"))
        return most

    def book(self, charge: Charge, sign: int) -> None:
        """Adds what a placement uses; ``sign`` -1 takes it away again."""
        self._share = None
        self.jobs += sign if charge.job else 0
        for name, amount in charge.amounts:
            self.used[name] = self.used.get(name, 0) + sign * amount
            if charge.firm:
                self.firm[name] = self.firm.get(name, 0) + sign * amount

    def recall(self, used: Amounts, firm: Amounts, jobs: int) -> None:
        """Takes what a past decision saw."""
        self._share = None
        self.used, self.firm, self.jobs = dict(used), dict(firm), jobs


@value(frozen=True, slots=True)
class Charge:
    """What one placement uses."""

    leaf: Node
    amounts: Amounts
    firm: bool
    job: bool = True  # only those are counted against `kube-queue/max-jobs`
