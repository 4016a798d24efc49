"""What waits, and what wakes it: priority, order of arrival, and an index of waiting workloads by cluster.

Workloads that ask for the same under the same policy form one class, and only its head is tried: while the head does
not fit, the others do not either. So an event costs a look at the classes that mean the cluster, not at everything
that waits, and a timer retries heads only (1 s, doubling to 10 s).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from gpufleet.model.quota import Amounts
from services.scheduler.core.fleet import Fleet
from services.scheduler.core.member import Member
from services.scheduler.core.quota import Quotas
from services.scheduler.core.settings import Settings
from services.scheduler.core.units import Part

# (-priority, arrival, key): smaller goes first.
Order = tuple[int, int, str]
ClassKey = tuple[object, ...]


class Queued(NamedTuple):
    """A workload's place: its position in which queue, with which priority, and since when it waits."""

    position: int
    line: str
    priority: int
    since: float


@dataclass(slots=True)
class Line:
    """One queue: of a quota, or of what has none. ``first`` may block the others; some that wait never do.

    ``kept`` is the cluster that is kept for ``kept_for``, which was overtaken for too long; ``unit`` is what it needs
    of its quota.
    """

    waiting: list[Order] = field(default_factory=list)
    blocking: list[Order] = field(default_factory=list)
    kept_for: Order | None = None
    kept: str = ""
    unit: Amounts = ()

    @property
    def first(self) -> Order | None:
        """Who goes first of those that can block."""
        return self.blocking[0] if self.blocking else None


@dataclass(frozen=True, slots=True)
class QuotaNeed:
    """The least that would help who waits for its quota: so much more in a leaf, preemptible or not, a job or not."""

    leaf: str
    unit: Amounts
    firm: bool
    job: bool


@dataclass(slots=True)
class WaitClass:
    """Workloads that wait for the same. ``needs`` are parts with the least count that would help, ``quota`` what would
    of the quota, if that is what they wait for."""

    key: ClassKey
    clusters: tuple[str, ...]
    needs: tuple[tuple[tuple[Part, int], ...], ...]
    stock: bool
    back_off: float
    retry_at: float
    quota: QuotaNeed | None = None
    heap: list[Order] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)


class Queue:
    """Everything that waits for capacity."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._classes: dict[ClassKey, WaitClass] = {}
        self._class_of: dict[str, ClassKey] = {}
        self._order_of: dict[str, Order] = {}
        self._by_cluster: dict[str, dict[ClassKey, None]] = {}
        self._by_quota: dict[ClassKey, None] = {}
        self._retries: list[tuple[float, int, ClassKey]] = []
        self._counter = 0
        self._lines: dict[str, Line] = {}
        self._line_of: dict[str, str] = {}
        self.let_go: list[str] = []  # lines whose first, or for whom a cluster is kept, has left its place

    def __len__(self) -> int:
        return len(self._order_of)

    def __contains__(self, key: str) -> bool:
        return key in self._order_of

    def line(self, name: str) -> Line:
        """Returns a queue by the name of its quota."""
        known = self._lines.get(name)
        if known is None:
            known = self._lines[name] = Line()
        return known

    def recall(self, name: str, line: Line, ahead: int) -> None:
        """Takes what a past decision saw for a queue; so many wait before whoever is decided on."""
        line.waiting = [(-(2**63), number, "") for number in range(ahead)]
        self._lines[name] = line

    def position(self, order: Order, line: str = "") -> int:
        """Returns how many wait before an order in its queue, plus one."""
        return bisect_left(self.line(line).waiting, order) + 1

    def class_of(self, workload: str) -> ClassKey | None:
        """Returns the class that a workload waits in, or None."""
        return self._class_of.get(workload)

    def add(
        self,
        order: Order,
        key: ClassKey,
        clusters: tuple[str, ...],
        needs: tuple[tuple[tuple[Part, int], ...], ...],
        stock: bool,
        now: float,
        quota: QuotaNeed | None = None,
        *,
        line: str = "",
        blocks: bool = True,
    ) -> None:
        """Lets a workload wait; it may wait already. ``blocks``: it may hold up those after it in its queue."""
        workload = order[2]
        known = self._classes.get(key)
        if known is not None and known.clusters != clusters:
            self._watch(known, clusters)
        queue = self.line(line)
        stays = (self._order_of.get(workload), self._line_of.get(workload)) == (order, line)
        if (
            stays
            and known is not None
            and self._class_of[workload] == key
            and (known.needs, known.stock) == (needs, stock)
            and blocks is _contains(queue.blocking, order)
        ):
            return
        self.remove(workload, stays=stays and blocks)
        known = self._classes.get(key)
        if known is None:
            first = self._settings.retry_initial
            known = self._classes[key] = WaitClass(key, (), needs, stock, first, now + first, quota)
            if quota is not None:
                self._by_quota[key] = None
            self._watch(known, clusters)
            self._schedule(known)
        known.waiting.add(workload)
        heapq.heappush(known.heap, order)
        self._class_of[workload] = key
        self._order_of[workload] = order
        self._line_of[workload] = line
        insort(queue.waiting, order)
        if blocks:
            insort(queue.blocking, order)

    def ranked_anew(self, order_of: Callable[[str], Order]) -> list[str]:
        """Puts everybody whose order is another now where it belongs, and returns them in their new order."""
        moved = sorted(order for key, known in self._order_of.items() if (order := order_of(key)) != known)
        for order in moved:
            workload = order[2]
            before, line = self._order_of[workload], self._lines[self._line_of[workload]]
            for waiting in (line.waiting, line.blocking):
                if _contains(waiting, before):
                    del waiting[bisect_left(waiting, before)]
                    insort(waiting, order)
            if line.kept_for == before:
                line.kept_for = order
            self._order_of[workload] = order
            heapq.heappush(self._classes[self._class_of[workload]].heap, order)
        return [workload for _, _, workload in moved]

    def remove(self, workload: str, *, stays: bool = False) -> None:
        """Takes a workload out; it need not be there. ``stays``: only to be put in again at the same place."""
        key = self._class_of.pop(workload, None)
        if key is None:
            return
        order = self._order_of.pop(workload)
        name = self._line_of.pop(workload)
        queue = self._lines[name]
        del queue.waiting[bisect_left(queue.waiting, order)]
        if not stays and order in (queue.first, queue.kept_for):
            self.let_go.append(name)
        if _contains(queue.blocking, order):
            del queue.blocking[bisect_left(queue.blocking, order)]
        if queue.kept_for == order and not stays:
            queue.kept_for, queue.unit = None, ()
        known = self._classes[key]
        known.waiting.discard(workload)
        if not known.waiting:
            self._watch(known, ())
            self._by_quota.pop(key, None)
            del self._classes[key]

    def head(self, key: ClassKey) -> str | None:
        """Returns the first of a class, or None if nobody waits in it."""
        known = self._classes.get(key)
        if known is None:
            return None
        while known.heap[0][2] not in known.waiting or self._order_of[known.heap[0][2]] != known.heap[0]:
            heapq.heappop(known.heap)
        return known.heap[0][2]

    def heads(self) -> list[str]:
        """Returns the first of every class."""
        return [head for key in self._classes if (head := self.head(key)) is not None]

    def woken(self, fleet: Fleet, clusters: Iterable[str]) -> list[str]:
        """Returns the heads of the classes that one of some clusters, which may have gained room, could help."""
        found: dict[str, None] = {}
        for cluster in clusters if self._by_cluster else ():
            for key in self._by_cluster.get(cluster, ()):
                known = self._classes[key]
                if _helps(fleet, cluster, known) and (head := self.head(key)) is not None:
                    found[head] = None
        return list(found)

    def woken_by_quota(self, quotas: Quotas) -> list[str]:
        """Returns the heads of the classes whose quota has room for more now."""
        heads = [head for key in self._by_quota if (head := self.head(key)) is not None]
        return [head for head in heads if self.granted(head, quotas)]

    def granted(self, workload: str, quotas: Quotas) -> bool:
        """Returns whether quota is no reason (any more) to go on waiting, going by what its class waits for."""
        known = self._classes.get(self._class_of.get(workload, ()))
        need = known.quota if known is not None else None
        if need is None:
            return True
        leaf = quotas.leaf(need.leaf)
        if leaf is None:
            return False
        if quotas.charge_of(workload) is None:
            return quotas.admits(leaf, need.unit, firm=need.firm, job=need.job)
        room, _ = quotas.room(workload, leaf, need.unit, firm=need.firm, job=need.job)
        return room > quotas.units(workload, need.unit)

    def helped(self, workload: str, fleet: Fleet) -> bool:
        """Returns whether some cluster may have room for a workload, going by what its class waits for."""
        known = self._classes.get(self._class_of.get(workload, ()))
        if known is None or not known.clusters or not known.needs:
            return True
        for needs in known.needs:
            for member in _with_room(fleet, needs, stock=known.stock):
                if known.key in self._by_cluster.get(member.name, ()) and _helps(fleet, member.name, known):
                    return True
        return False

    def due(self, now: float) -> list[str]:
        """Returns the heads whose retry is due, and puts their next one off."""
        found: list[str] = []
        while self._retries and self._retries[0][0] <= now:
            at, _, key = heapq.heappop(self._retries)
            known = self._classes.get(key)
            if known is None or known.retry_at != at:
                continue
            known.back_off = min(known.back_off * 2, self._settings.retry_max)
            known.retry_at = now + known.back_off
            self._schedule(known)
            if (head := self.head(key)) is not None:
                found.append(head)
        return found

    def wake_at(self) -> float | None:
        """Returns when the next retry is due, or None."""
        while self._retries:
            at, _, key = self._retries[0]
            known = self._classes.get(key)
            if known is not None and known.retry_at == at:
                return at
            heapq.heappop(self._retries)
        return None

    def _watch(self, known: WaitClass, clusters: tuple[str, ...]) -> None:
        """Has a class woken by these clusters from now on."""
        for cluster in known.clusters:
            classes = self._by_cluster[cluster]
            del classes[known.key]
            if not classes:
                del self._by_cluster[cluster]
        known.clusters = clusters
        for cluster in clusters:
            self._by_cluster.setdefault(cluster, {})[known.key] = None

    def _schedule(self, known: WaitClass) -> None:
        self._counter += 1
        heapq.heappush(self._retries, (known.retry_at, self._counter, known.key))


def _contains(orders: list[Order], order: Order) -> bool:
    place = bisect_left(orders, order)
    return place < len(orders) and orders[place] == order


def _with_room(fleet: Fleet, needs: tuple[tuple[Part, int], ...], *, stock: bool) -> Iterable[Member]:
    """Yields the clusters with room for the first of what is needed, which are few while others wait."""
    if not needs or needs[0][0].virtual is not None:
        return fleet.by_index
    part, count = needs[0]
    column = fleet.column(part.shape)
    room = column.running + column.stock if stock else column.running
    return [fleet.by_index[index] for index in (room >= count).nonzero()[0].tolist()]


def _helps(fleet: Fleet, cluster: str, known: WaitClass) -> bool:
    member = fleet.members[cluster]
    if not known.needs:
        return True
    for needs in known.needs:
        for part, count in needs:
            if part.virtual is not None:
                room = member.virtual_room(part)
            else:
                running, stock = member.counts(part.shape)
                room = running + (stock if known.stock else 0)
            if room < count:
                break
        else:
            return True
    return False
