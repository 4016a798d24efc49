"""How pods fill the units of a ResourcePolicy in order, within one cluster (specification 15.3, 15.4).

A unit takes pods up to its bounds and its room; whether the others may go on to the next unit is the policy's
`whenTryNextUnits`. The bounds count the pods of every workload that the policy governs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpufleet.model.placement import Slot, Source, UnitWait
from gpufleet.model.policy import ResourceUnit, UnitResource
from services.scheduler.core import unit_use
from services.scheduler.core.blocks import Blocks, take
from services.scheduler.core.pool import SOURCES, Pool, VirtualPool
from services.scheduler.core.shapes import UNBOUNDED, Fitter
from services.scheduler.core.stock import Stock
from services.scheduler.core.units import WAIT_LABEL, Part, Way, splits

if TYPE_CHECKING:
    from services.scheduler.core.draft import Draft
    from services.scheduler.core.member import Member


@dataclass(frozen=True, slots=True)
class Room:
    """What one cluster takes: pods on nodes and instances that are there, and in stock."""

    running: int
    stock: int


def mixes(draft: Draft) -> bool:
    """Returns whether pods of one cluster may land in several ways."""
    return (len(draft.ways) > 1 or draft.units is not None) and splits(draft.workload)


# --- When a pod may go on to the next unit ------------------------------------------------------------------------


def may_leave(draft: Draft, cluster: str, way: Way, *, full: bool) -> bool:
    """Returns whether pods that a unit does not take may try the next one; ``full``: it has what its bounds allow."""
    policy, unit = draft.units, way.rule
    if policy is None or unit is None:
        return True
    match policy.when_try_next:
        case "ExceedMax":
            return full or not _bounded(unit)
        case "TimeoutOrExceedMax":
            if full or not waits_for_room(unit):
                return True
            since = draft.waited.get((cluster, way.variant))
            return since is not None and draft.now >= since + (policy.timeout or 0.0)
        case "LackResourceAndNoTerminating":
            return unit_use.terminating(draft, cluster, way.variant) == 0
    return True


def waits_for_room(unit: ResourceUnit) -> bool:
    """Returns whether TimeoutOrExceedMax has pods wait in a unit; serverless instances of ``acs`` know no time-out."""
    if unit.resource is UnitResource.ACS:
        return False
    return _bounded(unit) or dict(unit.pod_labels).get(WAIT_LABEL) == "true"


def _bounded(unit: ResourceUnit) -> bool:
    return unit.max is not None or bool(unit.max_resources)


def note_waits(draft: Draft, missing: int) -> tuple[UnitWait, ...]:
    """Returns where the pods that were not placed wait for room, and since when.

    A wait that is over stays, so that the pods that it has let go on do not begin to wait again.
    """
    policy = draft.units
    if policy is None or missing <= 0 or policy.when_try_next != "TimeoutOrExceedMax":
        return ()
    waits = {key: since for key, since in draft.waited.items() if draft.now >= since + (policy.timeout or 0.0)}
    for cluster, variant in draft.stopped.items():
        waits[cluster, variant] = draft.waited.get((cluster, variant), draft.now)
    return tuple(UnitWait(cluster, unit, since) for (cluster, unit), since in sorted(waits.items()))


def next_look(draft: Draft) -> list[float]:
    """Returns when waits of a draft end (epoch seconds)."""
    timeout = draft.units.timeout if draft.units is not None else None
    return [w.since + timeout for w in draft.unit_waits if timeout is not None and w.since + timeout > draft.now]


# --- Room, and taking it ------------------------------------------------------------------------------------------


def room(draft: Draft, member: Member, own: Sequence[Slot]) -> Room:
    """Returns how many more pods a cluster takes; ``own`` are the workload's slots there.

    Notes the unit at which the pods would have to stop, if there is one.
    """
    member.settle()
    draft.stopped.pop(member.name, None)
    if member.debt:
        return Room(0, 0)
    scratch = None if _apart(member, draft.ways) else _Scratch(member)
    running = stock = 0
    for way in draft.ways:
        part = way.parts[0]
        limit = unit_use.left(draft, member.name, way, own)
        if scratch is None:
            here, more = member.counts_of(part)
            here = min(here, limit)
            more = min(more, limit - here) if draft.stock else 0
        else:
            here = sum(s.count for s in scratch.running(part, limit))
            more = sum(s.count for s in scratch.stock(part, limit - here)) if draft.stock else 0
        running, stock = min(UNBOUNDED, running + here), min(UNBOUNDED, stock + more)
        if not may_leave(draft, member.name, way, full=limit - here - more <= 0):
            draft.stopped[member.name] = way.variant
            break
    return Room(running, stock)


def fill(draft: Draft, member: Member, count: int, own: Sequence[Slot]) -> list[Slot]:
    """Takes room for new pods out of a cluster's pools, unit by unit, and returns the slots.

    What has no room (static weights, copies) is given to the unit that it has to wait in, uncounted.
    """
    member.settle()
    found: list[Slot] = []
    left = count
    ways = open_ways(draft, member.name)
    limits = [unit_use.left(draft, member.name, way, own) for way in ways]
    passes = [(True, False), (False, True)] if draft.policy.existing_capacity_first else [(True, True)]
    for running, stock in passes:
        for index, way in enumerate(ways):
            taken: list[Slot] = []
            bound = min(left, limits[index])
            if running:
                taken += _take_running(member, way.parts[0], bound)
            if stock and draft.stock:
                taken += _take_stock(member, way.parts[0], bound - sum(s.count for s in taken))
            got = sum(s.count for s in taken)
            left -= got
            limits[index] -= got
            found += [replace(s, unit=way.unit, variant=way.variant) for s in taken]
    if left:
        index = next((i for i, limit in enumerate(limits) if limit > 0), len(ways) - 1)
        way = ways[index]
        found.append(Slot(way.parts[0].component, "", left, Source.RUNNING, way.unit, way.variant))
    return found


def open_ways(draft: Draft, cluster: str) -> tuple[Way, ...]:
    """Returns the ways up to the one at which pods have to stop."""
    stop = draft.stopped.get(cluster)
    if stop is None:
        return draft.ways
    return draft.ways[: 1 + next(i for i, way in enumerate(draft.ways) if way.variant == stop)]


def tried(draft: Draft, member: Member, counts: Mapping[str, int], own: Sequence[Slot] = ()) -> tuple[Way, ...]:
    """Returns the ways that something which lands in one way only may try in a cluster, in order."""
    if draft.units is None:
        return draft.ways
    draft.stopped.pop(member.name, None)
    total = sum(counts.values())
    found = []
    for way in draft.ways:
        fits = unit_use.within(draft, member.name, way, counts, own)
        if fits:
            found.append(replace(way, limit=total))
        if not may_leave(draft, member.name, way, full=not fits):
            draft.stopped[member.name] = way.variant
            break
    return tuple(found)


def _places(member: Member, part: Part) -> set[str]:
    if part.virtual is not None:
        return {f"virtual/{node.name}" for node in member.virtual_nodes(part)}
    return {p.name for p in member.pools if part.takes(p.node_class) and part.shape.admitted(p.identity)}


def _apart(member: Member, ways: Sequence[Way]) -> bool:
    """Returns whether no node can serve two of the ways, so that their room may be added up."""
    seen: set[str] = set()
    for way in ways:
        places = _places(member, way.parts[0])
        if seen & places:
            return False
        seen |= places
    return True


def _take_running(member: Member, part: Part, count: int) -> list[Slot]:
    slots: list[Slot] = []
    left = count
    if part.virtual is not None:
        for node in member.virtual_nodes(part):
            taken = node.take(part.virtual.model, part.virtual.gpus, left) if left > 0 else 0
            if taken:
                slots.append(Slot(part.component, node.name, taken, Source.VIRTUAL))
                left -= taken
        return slots
    for pool in member.pools:
        taken = pool.take_running(part.shape, left) if left > 0 and part.takes(pool.node_class) else 0
        if taken:
            slots.append(Slot(part.component, pool.name, taken, Source.RUNNING))
            left -= taken
    return slots


def _take_stock(member: Member, part: Part, count: int) -> list[Slot]:
    slots: list[Slot] = []
    left = count
    for source, take_from in SOURCES[1:] if part.virtual is None else ():
        for pool in member.pools:
            taken = take_from(pool, part.shape, left) if left > 0 and part.takes(pool.node_class) else 0
            if taken:
                slots.append(Slot(part.component, pool.name, taken, source))
                left -= taken
    return slots


class _Scratch:
    """Copies of a cluster's pools, from which several ways may take without taking from the cluster."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._blocks: dict[str, Blocks] = {}
        self._stock: dict[str, Stock] = {}
        self._virtual: dict[str, VirtualPool] = {}

    def running(self, part: Part, count: int) -> list[Slot]:
        """Takes from nodes and instances that are there."""
        if part.virtual is None:
            return self._take(part, count, Source.RUNNING, self._take_running)
        slots: list[Slot] = []
        for node in self._member.virtual_nodes(part):
            copy = self._virtual.get(node.name)
            if copy is None:
                copy = self._virtual[node.name] = node.copy()
            taken = copy.take(part.virtual.model, part.virtual.gpus, count)
            slots.append(Slot(part.component, node.name, taken, Source.VIRTUAL))
            count -= taken
        return slots

    def stock(self, part: Part, count: int) -> list[Slot]:
        """Takes from nodes that could be created."""
        return self._take(part, count, Source.ELASTIC, self._take_stock) if part.virtual is None else []

    def _take(
        self, part: Part, count: int, source: Source, take_from: Callable[[Pool, Fitter, int], int]
    ) -> list[Slot]:
        slots: list[Slot] = []
        for pool in self._member.pools:
            if count <= 0 or not part.takes(pool.node_class) or not part.shape.admitted(pool.identity):
                continue
            taken = take_from(pool, part.shape.fitter(pool.layout), count)
            slots.append(Slot(part.component, pool.name, taken, source))
            count -= taken
        return slots

    def _take_running(self, pool: Pool, fitter: Fitter, count: int) -> int:
        blocks = self._blocks.get(pool.name)
        if blocks is None:
            blocks = self._blocks[pool.name] = dict(pool.running)
        return take(blocks, fitter, count)

    def _take_stock(self, pool: Pool, fitter: Fitter, count: int) -> int:
        if not pool.counts_stock:
            return 0
        stock = self._stock.get(pool.name)
        if stock is None:
            stock = self._stock[pool.name] = pool.stock.copy()
        return stock.take(fitter, count)


# --- Scaling in ---------------------------------------------------------------------------------------------------


def rank(draft: Draft, slot: Slot) -> int:
    """Returns a slot's place in the order of units: the last one is given up first, pods of no unit before that."""
    if draft.units is None:
        return 0
    return next((i for i, way in enumerate(draft.ways) if way.variant == slot.variant), len(draft.ways))
