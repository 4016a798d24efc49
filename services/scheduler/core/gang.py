"""Placing a workload whole in one cluster, or not at all (specification 11.3, 12).

All components are packed on copies of the free blocks, largest pods first, tightest node first. Tiers are tried in
order; inside one, clusters that need no stock go first, then the one that is left least fragmented: by what the
shapes asked for lose (`fragmentation`), then by GPUs stranded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from gpufleet.model.placement import Slot, Source
from gpufleet.model.workload import Workload
from services.scheduler.core import fragmentation
from services.scheduler.core.blocks import Blocks, take
from services.scheduler.core.columns import Counts
from services.scheduler.core.fleet import Fleet
from services.scheduler.core.fragmentation import Weighing
from services.scheduler.core.member import Member
from services.scheduler.core.pool import Pool, VirtualPool
from services.scheduler.core.shapes import Fitter
from services.scheduler.core.stock import Stock
from services.scheduler.core.units import Part, Way

# How many clusters that fit are packed and compared per tier; the tightest by capacity come first.
_COMPARED = 8


@dataclass(frozen=True, slots=True)
class Packing:
    """One way in which everything fits: the slots in the order in which they were taken, and what it leaves.

    ``score``: what it costs the mix of shapes asked for, GPUs newly stranded on partly used nodes, then GPUs left free
    in the cluster; smaller is better.
    """

    cluster: str
    way: Way
    slots: tuple[Slot, ...]
    stock: bool
    score: tuple[int, int, int] = (0, 0, 0)

    @property
    def pods(self) -> int:
        """How many pods have a slot."""
        return sum(slot.count for slot in self.slots)


def wanted_by_size(way: Way, counts: dict[str, int]) -> list[tuple[Part, int]]:
    """Returns the parts with their counts, largest pods first, then by name."""
    wanted = [(part, counts.get(part.component, 0)) for part in way.parts]
    return sorted(
        ((part, count) for part, count in wanted if count > 0),
        key=lambda item: ([-x for x in item[0].shape.size[:3]], item[0].component),
    )


def may_fit(member: Member, wanted: Sequence[tuple[Part, int]], stock: bool) -> bool:
    """Returns whether each part fits by itself: necessary, and sufficient for a single one."""
    for part, count in wanted:
        if part.virtual is not None:
            if member.virtual_room(part) < count:
                return False
        else:
            running, more = member.counts(part.shape)
            if running + (more if stock else 0) < count:
                return False
    return True


def least(workload: Workload) -> dict[str, int]:
    """Returns the pods by component that must start together: all, or `minMember` of them in the order of components.

    The others run in the same cluster as far as they fit (specification 12.3).
    """
    left = workload.replicas if workload.min_member is None else workload.min_member
    needed = {}
    for component in workload.components:
        needed[component.name] = min(component.replicas, max(0, left))
        left -= component.replicas
    return needed


def pack(
    member: Member,
    way: Way,
    counts: dict[str, int],
    stock: bool,
    more: Mapping[str, int] | None = None,
    by: Weighing | None = None,
    *,
    create: bool = True,
    compared: bool = True,
) -> Packing | None:
    """Returns how everything fits a cluster, or None; ``more`` pods are packed as far as they fit. Nothing is taken.

    Without ``create``, of the stock only nodes count that somebody needs anyway. What need not be ``compared`` has no
    score.
    """
    member.settle()
    wanted = wanted_by_size(way, counts)
    if sum(counts.values()) > way.limit or not may_fit(member, wanted, stock):
        return None
    several = sum(counts.values()) > 1 or bool(more)
    scratch = _Copies(member, way, by, stock=stock, create=create, single=not several)
    for part, count in wanted:
        if scratch.take(part, count):
            return None
    bound = way.limit - sum(counts.values())
    for part, count in wanted_by_size(way, dict(more or {}) if not member.debt else {}):
        bound -= min(count, bound) - scratch.take(part, min(count, bound))
    uses_stock = any(slot.source is Source.ELASTIC for slot in scratch.slots)
    if not compared:
        return Packing(member.name, way, scratch.merged(), uses_stock)
    cost = by.mix.cost_of(member, scratch.running) if by is not None and several and not by.mix.one else 0
    return Packing(member.name, way, scratch.merged(), uses_stock, (cost, *_score(member, scratch.running)))


class _Copies:
    """A cluster's pools to take from without taking from them, and what was taken."""

    def __init__(
        self, member: Member, way: Way, by: Weighing | None, *, stock: bool, create: bool, single: bool
    ) -> None:
        self._member, self._way, self._by, self._single = member, way, by, single
        self.running: dict[str, Blocks] = {}
        self._stock: dict[str, Stock] = {}
        takes = [(Source.RUNNING, self._take_running)]
        if stock:
            takes.append((Source.ELASTIC, self._take_coming))
            if create:
                takes.append((Source.ELASTIC, self._take_stock))
        self._takes = takes
        self._virtual: dict[str, VirtualPool] = {}
        self.slots: list[Slot] = []

    def take(self, part: Part, count: int) -> int:
        """Takes room for some pods and returns for how many there was none."""
        way, left = self._way, count
        if part.virtual is not None:
            return left - _take_virtual(self._member, part, left, way, self._virtual, self.slots)
        order = fragmentation.order(self._by, self._member, part, single=self._single)
        for source, take_from in self._takes:
            for pool in order:
                if left > 0 and part.shape.admitted(pool.identity) and part.takes(pool.node_class):
                    taken = take_from(pool, part.shape.fitter(pool.layout), left)
                    if taken:
                        self.slots.append(Slot(part.component, pool.name, taken, source, way.unit, way.variant))
                        left -= taken
        return left

    def _take_running(self, pool: Pool, fitter: Fitter, count: int) -> int:
        blocks = self.running.get(pool.name)
        if blocks is None:
            blocks = self.running[pool.name] = dict(pool.running)
        return take(blocks, fitter, count)

    def _take_coming(self, pool: Pool, fitter: Fitter, count: int) -> int:
        return self._copy(pool).take_coming(fitter, count) if pool.counts_stock else 0

    def _take_stock(self, pool: Pool, fitter: Fitter, count: int) -> int:
        return self._copy(pool).take(fitter, count) if pool.counts_stock else 0

    def _copy(self, pool: Pool) -> Stock:
        copy = self._stock.get(pool.name)
        if copy is None:
            copy = self._stock[pool.name] = pool.stock.copy()
        return copy

    def merged(self) -> tuple[Slot, ...]:
        """Returns the slots, in the order in which they were first taken."""
        return tuple(add_up(self.slots))


def add_up(slots: list[Slot]) -> list[Slot]:
    """Returns slots with those that differ in their count only added up, in the order of the first of each."""
    if len(slots) < 2:
        return list(slots)
    found: dict[tuple[str, str, Source, int | None, str], int] = {}
    for slot in slots:
        key = (slot.component, slot.node_class, slot.source, slot.unit, slot.variant)
        found[key] = found.get(key, 0) + slot.count
    return [
        Slot(component, pool, count, source, unit, variant)
        for (component, pool, source, unit, variant), count in found.items()
    ]


def _take_virtual(
    member: Member, part: Part, count: int, way: Way, copies: dict[str, VirtualPool], slots: list[Slot]
) -> int:
    need = part.virtual
    if need is None:
        return 0
    left = count
    for node in member.virtual_nodes(part):
        copy = copies.get(node.name)
        if copy is None:
            copy = copies[node.name] = node.copy()
        taken = copy.take(need.model, need.gpus, left)
        if taken:
            slots.append(Slot(part.component, node.name, taken, Source.VIRTUAL, way.unit, way.variant))
            left -= taken
    return count - left


def _score(member: Member, after: dict[str, Blocks]) -> tuple[int, int]:
    stranded = free = 0
    for pool in member.pools:
        if not pool.layout.gpu_columns:
            continue
        blocks = after.get(pool.name)
        if blocks is not None:
            stranded += _stranded(pool, blocks) - _stranded(pool, pool.running)
        free += sum(pool.layout.gpus(f) * n for f, n in (blocks if blocks is not None else pool.running).items())
    return (stranded, free)


def _stranded(pool: Pool, blocks: Blocks) -> int:
    whole = pool.layout.gpus(pool.allocatable)
    return sum(gpus * nodes for free, nodes in blocks.items() if 0 < (gpus := pool.layout.gpus(free)) < whole)


def choose(
    fleet: Fleet,
    tiers: Sequence[Sequence[tuple[Member, Sequence[Way]]]],
    counts: dict[str, int],
    *,
    stock: bool,
    existing_first: bool,
    needed: dict[str, int] | None = None,
    by: Weighing | None = None,
) -> Packing | None:
    """Returns where everything goes, or None if no cluster takes it whole.

    ``tiers`` give the candidates with the ways to try in each, in order. ``needed`` are the pods that must fit, the
    others are packed beside them as far as they go; in a tier clusters that take everything go first. ``by`` is what
    places are compared by.
    """
    sizes = [_Size(fleet, counts, {})]
    if needed is not None and needed != counts:
        rest = {name: count - needed[name] for name, count in counts.items() if count > needed[name]}
        sizes.append(_Size(fleet, needed, rest))
    # With stock, and then with further nodes than those that are created anyway.
    reaches = [(False, False), (True, False), (True, True)] if stock else [(False, False)]
    if existing_first:
        passes = [(tier, reach) for reach in reaches for tier in tiers]
    else:
        passes = [(tier, reach) for tier in tiers for reach in reaches]
    for tier, (with_stock, create) in passes:
        if with_stock and not create and not any(pool.stock.coming for member, _ in tier for pool in member.pools):
            continue
        for size in sizes:
            left = tier if size.more else fragmentation.narrow(by, fleet, tier, size.counts)
            found = _packings(left, size, with_stock, by, create=create)
            packings = list(islice(found, _COMPARED))
            if size.more:  # the rest may use stock although the gang itself needs none
                filled = (pack(fleet.members[p.cluster], p.way, size.counts, stock, size.more, by) for p in packings)
                packings = [packing for packing in filled if packing is not None]
            if packings:
                return min(packings, key=lambda p: (-p.pods if size.more else 0, p.score, p.cluster))
    return None


# A part of a way, how many of its pods there must be room for, and the room by member index; None: on virtual nodes.
_Lead = tuple[Part, int, Counts | None]


class _Size:
    """How many pods must fit, and how many ``more`` are welcome; what decides whether they may fit, by way."""

    def __init__(self, fleet: Fleet, counts: dict[str, int], more: Mapping[str, int]) -> None:
        self.counts = counts
        self.more = more
        self._fleet = fleet
        self._leads: dict[tuple[int, bool], tuple[Sequence[Way], list[_Lead | None]]] = {}

    def leads(self, ways: Sequence[Way], *, stock: bool) -> list[_Lead | None]:
        """Returns the largest part of each way with its room; None where nothing is asked for."""
        known = self._leads.get((id(ways), stock))
        if known is None:
            known = self._leads[id(ways), stock] = (ways, [self._lead(way, stock) for way in ways])
        return known[1]

    def _lead(self, way: Way, stock: bool) -> _Lead | None:
        wanted = wanted_by_size(way, self.counts)
        if not wanted:
            return None
        part, count = wanted[0]
        if part.virtual is not None:
            return part, count, None
        column = self._fleet.column(part.shape)
        return part, count, column.running + column.stock if stock else column.running


def _packings(
    tier: Sequence[tuple[Member, Sequence[Way]]], size: _Size, stock: bool, by: Weighing | None, *, create: bool
) -> Iterator[Packing]:
    """Yields packings, tightest clusters first: by room for the largest real part.

    Where more pods are welcome the roomiest go first.
    """
    rooms: list[tuple[int, str, Member, Sequence[Way]]] = []
    for member, ways in tier:
        room = 0
        possible = False
        for lead in size.leads(ways, stock=stock):
            if lead is None:
                possible = True
                continue
            part, count, column = lead
            room = max(room, member.virtual_room(part) if column is None else int(column[member.index]))
            possible = possible or room >= count
        if possible:
            rooms.append((room, member.name, member, ways))
    rooms.sort(key=lambda item: (-item[0] if size.more else item[0], item[1]))
    for _, _, member, ways in rooms:
        for way in ways:
            packing = pack(member, way, size.counts, stock, by=by, create=create, compared=len(rooms) > 1)
            if packing is not None:
                yield packing
                break


def could_ever_fit(member: Member, ways: Sequence[Way], counts: dict[str, int]) -> bool:
    """Returns whether an empty cluster with all of its stock would take everything at once."""
    return any(_fits_empty(member, way, counts) for way in ways)


def _fits_empty(member: Member, way: Way, counts: dict[str, int]) -> bool:
    wanted = wanted_by_size(way, counts)
    most = way.rule.max if way.rule is not None else None
    if most is not None and sum(counts.values()) > most:
        return False
    if not all(member.potential(part) >= count for part, count in wanted):
        return False
    if len(wanted) < 2 or any(part.virtual is not None for part, _ in wanted):
        return True
    empty = {pool.name: {pool.allocatable: pool.potential_nodes} for pool in member.pools if pool.potential_nodes}
    for part, count in wanted:
        left = count
        for pool in member.pools:
            if left and pool.name in empty and part.shape.admitted(pool.identity) and part.takes(pool.node_class):
                left -= take(empty[pool.name], part.shape.fitter(pool.layout), left)
        if left:
            return False
    return True
