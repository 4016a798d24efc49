"""Elastic quotas over the whole fleet: what each quota uses, and how much more it may (specification 13.3).

Usage is charged per placement, in the leaf and in everything above it, and follows every change of the placement. A
preemptible workload may use up to ``max`` here and above; one that is not may use only what ``min`` guarantees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gpufleet.model import quantity
from gpufleet.model.placement import Placement
from gpufleet.model.quota import MAX_JOBS, Amounts, ElasticQuotaTree, QueueRule
from gpufleet.model.reasons import Verdict
from gpufleet.model.resources import Labels
from gpufleet.model.values import value
from gpufleet.model.workload import Workload
from services.scheduler.core.quota_node import NOTHING, Charge, Node
from services.scheduler.core.quota_terms import named_quota, preemptible, requests
from services.scheduler.core.shapes import UNBOUNDED

# For so many kinds of labels it is remembered which quota they mean.
_KNOWN = 4096
_RELEASED = frozenset({Verdict.FINISHED, Verdict.FAILED, Verdict.DELETING})


@value(frozen=True, slots=True)
class Shortfall:
    """The first limit that is in the way: of which quota, for which resource, and the numbers."""

    quota: str
    resource: str
    needed: int
    used: int
    limit: int
    what: str  # max, min or max-jobs
    others: bool = False  # ``used`` is what others use, ``needed`` all that the workload does

    def message(self) -> str:
        """Returns what is lacking, in numbers."""
        if self.resource == MAX_JOBS:
            return f"Insufficient quota({MAX_JOBS}) in quota {self.quota}: {self.used} of {self.limit} jobs run"
        needed, used, limit = (quantity.render(x, self.resource) for x in (self.needed, self.used, self.limit))
        firm = " that is not preemptible" if self.what == "min" else ""
        return (
            f"Insufficient quota({self.resource}) in quota {self.quota}: needs {needed}{firm}, "
            f"{used} of {self.what} {limit} is used{' by others' if self.others else ''}"
        )

    def of_all(self, units: int, room: int) -> Shortfall:
        """Returns it for all ``units`` of a workload, ``room`` of which it lets in; what is counted is one unit."""
        if self.resource == MAX_JOBS:
            return self
        return replace(self, needed=self.needed * units, used=self.used - self.needed * room, others=True)

    def never(self) -> str:
        """Returns why it never passes, where nobody else is in the way."""
        if self.resource == MAX_JOBS:
            return f"quota {self.quota} lets no job run: its {MAX_JOBS} is 0"
        needed, limit = (quantity.render(x, self.resource) for x in (self.needed, self.limit))
        return f"needs {needed} {self.resource}, but quota {self.quota} has a {self.what} of {limit} in all"

    def needs(self) -> str:
        """Returns the smallest change that would let it pass."""
        more = self.used + self.needed - self.limit
        return f"quota {self.quota}: {quantity.render(more, self.resource)} more {self.resource} in {self.what}"


class Quotas:
    """The fleet's quotas. Without a tree nothing is counted and nothing costs anything."""

    def __init__(self) -> None:
        self.trees: dict[str, ElasticQuotaTree] = {}
        self.queues: dict[str, QueueRule] = {}
        self.tree: ElasticQuotaTree | None = None  # the one that counts
        self.root: Node | None = None
        self.freed = False  # whether some usage fell, or a limit rose, since somebody asked
        self._by_name: dict[str, Node] = {}
        self._by_namespace: dict[str, Node] = {}
        self._leaf_of: dict[tuple[Labels, str], Node | None] = {}
        self._governed: frozenset[str] = frozenset()
        self._charges: dict[str, Charge] = {}

    def put(self, tree: ElasticQuotaTree) -> bool:
        """Takes a tree; returns whether anything changes, and then every charge has to be made anew."""
        if self.trees.get(tree.key) == tree:
            return False
        self.trees[tree.key] = tree
        self._build()
        return True

    def remove(self, key: str) -> bool:
        """Takes a tree away; returns whether it was there."""
        if self.trees.pop(key, None) is None:
            return False
        self._build()
        return True

    def put_queue(self, rule: QueueRule) -> bool:
        """Takes how a queue is worked off; returns whether anything changes."""
        if self.queues.get(rule.key) == rule:
            return False
        self.queues[rule.key] = rule
        self._arrange()
        return True

    def remove_queue(self, key: str) -> bool:
        """Takes such a rule away; returns whether it was there."""
        if self.queues.pop(key, None) is None:
            return False
        self._arrange()
        return True

    def _arrange(self) -> None:
        """Applies the rules of queues to the leaves; of several for one leaf the last by name counts."""
        for leaf in self._by_name.values():
            leaf.blocking, leaf.priority = leaf.quota.blocking, 0
            path = tuple(node.name for node in reversed(leaf.path))
            for _, rule in sorted(self.queues.items()):
                if rule.means(path):
                    leaf.blocking, leaf.priority = rule.blocking, rule.priority

    def _build(self) -> None:
        self._leaf_of = {}
        self._by_name, self._by_namespace, self._charges, self.root, self.tree = {}, {}, {}, None, None
        self._governed = frozenset()
        self.freed = True
        if not self.trees:
            return
        # There should be one; of several the newest counts.
        self.tree = max(self.trees.values(), key=lambda t: (t.version, t.name))
        self.root = Node(self.tree.root, None)
        governed: set[str] = set()
        for node in self.root.walk():
            governed |= node.min.keys() | node.max.keys()
            if not node.children:
                self._by_name[node.name] = node
                for namespace in node.quota.namespaces:
                    self._by_namespace[namespace] = node
        self._governed = frozenset(governed)
        self._arrange()

    def leaf(self, name: str) -> Node | None:
        """Returns a leaf by its name."""
        return self._by_name.get(name)

    def leaf_of(self, workload: Workload) -> Node | None:
        """Returns the quota that a workload counts in: its label's, else its namespace's."""
        key = (workload.labels, workload.namespace)
        if key not in self._leaf_of:
            if len(self._leaf_of) >= _KNOWN:
                self._leaf_of.clear()
            named = named_quota(workload)
            self._leaf_of[key] = self._by_name.get(named) if named else self._by_namespace.get(workload.namespace)
        return self._leaf_of[key]

    def recall(self, use: Iterable[tuple[str, Amounts, Amounts, int]]) -> None:
        """Takes what a past decision saw for what quotas use: by name, all of it, the firm part, and jobs."""
        nodes = {node.name: node for node in self.root.walk()} if self.root is not None else {}
        for name, used, firm, jobs in use:
            node = nodes.get(name)
            if node is not None:
                node.recall(used, firm, jobs)

    def charge_of(self, key: str) -> Charge | None:
        """Returns what is charged for a workload now."""
        return self._charges.get(key)

    def update(self, key: str, workload: Workload | None, placement: Placement | None) -> None:
        """Charges what a placement uses now in place of what it used."""
        if self.root is None:
            return
        before = self._charges.get(key)
        after = self._charge(workload, placement)
        if before == after:
            return
        if before is not None:
            for node in before.leaf.path:
                node.book(before, -1)
            del self._charges[key]
            self.freed = True
        if after is not None:
            for node in after.leaf.path:
                node.book(after, 1)
            self._charges[key] = after

    def _charge(self, workload: Workload | None, placement: Placement | None) -> Charge | None:
        if workload is None or placement is None or not placement.shares or placement.verdict in _RELEASED:
            return None
        leaf = self.leaf_of(workload)
        if leaf is None:
            return None
        counts: dict[str, int] = {}
        for share in placement.shares:
            for name, count in share.components:
                counts[name] = counts.get(name, 0) + count
        return Charge(leaf, self.needs(workload, counts), not preemptible(workload), workload.job)

    def needs(self, workload: Workload, counts: Mapping[str, int]) -> Amounts:
        """Returns what so many pods by component use of the resources that the tree speaks of."""
        total: dict[str, int] = {}
        for component in workload.components:
            count = counts.get(component.name, 0)
            if count:
                for name, amount in requests(component.shape, component.labels):
                    if name in self._governed:
                        total[name] = total.get(name, 0) + amount * count
        return tuple(sorted(total.items()))

    def units(self, key: str, unit: Amounts) -> int:
        """Returns how many units are charged for a workload now."""
        own = self._charges.get(key)
        if own is None:
            return 0
        known = dict(own.amounts)
        return min((known.get(name, 0) // amount for name, amount in unit), default=1)

    def admits(self, leaf: Node, unit: Amounts, *, firm: bool, job: bool) -> bool:
        """Returns whether a unit may be used by somebody who uses nothing yet: as `room` says."""
        for node in leaf.path:
            jobs = node.max.get(MAX_JOBS)
            if job and jobs is not None and node.jobs >= jobs:
                return False
            for name, amount in unit:
                if firm and node.firm.get(name, 0) + amount > node.min.get(name, 0):
                    return False
                limit = node.max.get(name)
                if limit is not None and node.used.get(name, 0) + node.lent(name, leaf.path) + amount > limit:
                    return False
        return True

    def room(
        self, key: str, leaf: Node, unit: Amounts, *, firm: bool, job: bool, kept: Amounts = ()
    ) -> tuple[int, Shortfall | None]:
        """Returns how many units a workload may use in all, and what bounds them; its own charge counts as free.

        ``kept`` is kept for somebody else. A unit of nothing (no resource that the tree speaks of) is bounded by the
        number of jobs only, and that bounds what is a ``job``.
        """
        room, short = UNBOUNDED, None
        others = dict(kept)
        own = self._charges.get(key)
        for node in leaf.path:
            counted = own is not None and node in own.leaf.path
            mine = dict(own.amounts) if own is not None and counted else NOTHING
            jobs = node.max.get(MAX_JOBS)
            running = node.jobs - (1 if own is not None and own.job and counted else 0)
            if job and jobs is not None and running >= jobs:
                return 0, Shortfall(node.name, MAX_JOBS, 1, running, jobs, "max")
            for name, amount in unit:
                if firm:
                    held = node.firm.get(name, 0) - (mine.get(name, 0) if own is not None and own.firm else 0)
                    here = max(0, node.min.get(name, 0) - held) // amount
                    if here < room:
                        room = here
                        short = Shortfall(node.name, name, amount, held + here * amount, node.min.get(name, 0), "min")
                limit = node.max.get(name)
                if limit is not None:
                    used = node.used.get(name, 0) - mine.get(name, 0) + node.lent(name, leaf.path) + others.get(name, 0)
                    here = max(0, limit - used) // amount
                    if here < room:
                        room, short = here, Shortfall(node.name, name, amount, used + here * amount, limit, "max")
        return room, short


def beyond(leaf: Node, unit: Amounts, *, firm: bool, job: bool) -> Shortfall | None:
    """Returns the first limit that does not let a unit in even if nobody else uses the quota; None: there is none."""
    for node in leaf.path:
        if job and node.max.get(MAX_JOBS) == 0:
            return Shortfall(node.name, MAX_JOBS, 1, 0, 0, "max")
        for name, amount in unit:
            if firm and amount > node.min.get(name, 0):
                return Shortfall(node.name, name, amount, 0, node.min.get(name, 0), "min")
            if amount > node.max.get(name, amount):
                return Shortfall(node.name, name, amount, 0, node.max[name], "max")
    return None
