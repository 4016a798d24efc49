"""Placing a workload whole in one cluster, or not at all (specification 11.3, 12).

All components are packed on copies of the free blocks, largest pods first, tightest node first. Tiers are tried in
order; inside one, clusters that need no stock go first, then the one that is left least fragmented.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from gpufleet.model.placement import Slot, Source
from services.scheduler.core.capacity import Fleet, Member
from services.scheduler.core.pool import Blocks, Pool, VirtualPool, take
from services.scheduler.core.units import Part, Way

# How many clusters that fit are packed and compared per tier; the tightest by capacity come first.
_COMPARED = 8


@dataclass(frozen=True, slots=True)
class Packing:
    """One way in which everything fits: the slots in the order in which they were taken, and what it leaves.

    ``score``: GPUs newly stranded on partly used nodes, then GPUs left free in the cluster; smaller is better.
    """

    cluster: str
    way: Way
    slots: tuple[Slot, ...]
    stock: bool
    score: tuple[int, int]


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


def pack(member: Member, way: Way, counts: dict[str, int], stock: bool) -> Packing | None:
    """Returns how everything fits a cluster, or None. Nothing is taken."""
    wanted = wanted_by_size(way, counts)
    if sum(counts.values()) > way.limit or not may_fit(member, wanted, stock):
        return None
    running: dict[str, Blocks] = {}
    elastic: dict[str, Blocks] = {}
    virtual: dict[str, VirtualPool] = {}
    slots: list[Slot] = []
    for part, count in wanted:
        left = count
        if part.virtual is not None:
            left -= _take_virtual(member, part, left, way, virtual, slots)
        else:
            for source, copies in ((Source.RUNNING, running), (Source.ELASTIC, elastic)):
                if source is Source.ELASTIC and not stock:
                    continue
                for pool in member.pools:
                    if left and part.shape.admitted(pool.identity) and part.takes(pool.node_class):
                        blocks = copies.get(pool.name)
                        if blocks is None:
                            base = pool.running if source is Source.RUNNING else pool.stock
                            blocks = copies[pool.name] = dict(base)
                        taken = take(blocks, part.shape.fitter(pool.layout), left)
                        if taken:
                            slots.append(Slot(part.component, pool.name, taken, source, way.unit, way.variant))
                            left -= taken
        if left:
            return None
    uses_stock = any(slot.source is Source.ELASTIC for slot in slots)
    return Packing(member.name, way, tuple(slots), uses_stock, _score(member, running))


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
) -> Packing | None:
    """Returns where everything goes, or None if no cluster takes it whole.

    ``tiers`` give the candidates with the ways to try in each, in order.
    """
    passes: list[tuple[Sequence[tuple[Member, Sequence[Way]]], bool]]
    if existing_first and stock:
        passes = [(tier, False) for tier in tiers] + [(tier, True) for tier in tiers]
    else:
        passes = [(tier, s) for tier in tiers for s in ((False, True) if stock else (False,))]
    for tier, with_stock in passes:
        packings = list(islice(_packings(fleet, tier, counts, with_stock), _COMPARED))
        if packings:
            return min(packings, key=lambda packing: (packing.score, packing.cluster))
    return None


def _packings(
    fleet: Fleet, tier: Sequence[tuple[Member, Sequence[Way]]], counts: dict[str, int], stock: bool
) -> Iterator[Packing]:
    """Yields packings, tightest clusters first: by room for the largest real part."""
    rooms: list[tuple[int, str, Member, Sequence[Way]]] = []
    for member, ways in tier:
        room = 0
        possible = False
        for way in ways:
            wanted = (
                wanted_by_size(way, counts) if len(way.parts) > 1 else [(p, counts[p.component]) for p in way.parts]
            )
            wanted = [item for item in wanted if item[1] > 0]
            if not wanted:
                possible = True
                continue
            part, count = wanted[0]
            if part.virtual is not None:
                room = max(room, member.virtual_room(part))
            else:
                column = fleet.column(part.shape)
                here = column.running[member.index] + (column.stock[member.index] if stock else 0)
                room = max(room, here)
            possible = possible or room >= count
        if possible:
            rooms.append((room, member.name, member, ways))
    rooms.sort(key=lambda item: (item[0], item[1]))
    for _, _, member, ways in rooms:
        for way in ways:
            packing = pack(member, way, counts, stock)
            if packing is not None:
                yield packing
                break


def could_ever_fit(member: Member, ways: Sequence[Way], counts: dict[str, int]) -> bool:
    """Returns whether an empty cluster with all of its stock would take everything, part by part."""
    return any(all(member.potential(part) >= count for part, count in wanted_by_size(way, counts)) for way in ways)
