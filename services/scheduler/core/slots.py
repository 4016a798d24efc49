"""From counts to shares: which node classes the new replicas were counted on, taken from the pools for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gpufleet.model.placement import ClusterShare, Slot, Source
from services.scheduler.core import unit_fill
from services.scheduler.core.divide import Mode
from services.scheduler.core.draft import Draft
from services.scheduler.core.gang import add_up
from services.scheduler.core.member import Member
from services.scheduler.core.pool import SOURCES
from services.scheduler.core.room import room_in, way_in, way_of_share, ways_in
from services.scheduler.core.units import Part, Way


def build(draft: Draft, counts: Mapping[str, Mapping[str, int]]) -> tuple[ClusterShare, ...]:
    """Returns the shares for replicas per cluster and component, and takes their new slots out of the pools."""
    shares = []
    for cluster in sorted(counts):
        wanted = counts[cluster]
        if not any(wanted.values()) and draft.workload.components:
            continue
        shares.append(_share(draft, cluster, wanted))
    return tuple(shares)


def _share(draft: Draft, cluster: str, wanted: Mapping[str, int]) -> ClusterShare:
    before = draft.before.get(cluster)
    components = tuple(sorted((name, count) for name, count in wanted.items()))
    packed = draft.slots.get(cluster)
    if before is not None and before.components == components and packed is None:
        return before
    member = draft.state.fleet.member(cluster)
    if packed is not None:
        _take_packed(draft, member, packed)
        return ClusterShare(cluster, components, packed)
    kept: list[Slot] = []
    for component, count in components:
        kept.extend(_kept(before, component, count))
    slots = list(kept)
    new = False
    if unit_fill.mixes(draft):
        more = sum(wanted.values()) - sum(slot.count for slot in kept)
        if more > 0:
            new = True
            slots.extend(unit_fill.fill(draft, member, more, kept))
        return _noted(draft, member, before, ClusterShare(cluster, components, merged(draft, slots)), new=new)
    way = way_in(draft, cluster)
    if before is not None and (bound := way_of_share(draft, before)) is not None:
        way = bound
    elif len(draft.ways) > 1:
        way = _preferred(draft, member, way, sum(wanted.values()))
    for part in way.parts:
        have = sum(slot.count for slot in kept if slot.component == part.component)
        more = wanted.get(part.component, 0) - have
        if more > 0:
            new = True
            slots.extend(_take(member, part, more, way, stock=draft.stock))
    share = ClusterShare(cluster, components, merged(draft, slots, sort=before is not None))
    return _noted(draft, member, before, share, new=new)


def _noted(
    draft: Draft, member: Member, before: ClusterShare | None, share: ClusterShare, *, new: bool
) -> ClusterShare:
    if new and before is None:
        draft.taken.add(member.name)
    elif new:
        draft.state.fleet.touch(member)
    return share


def _kept(before: ClusterShare | None, component: str, count: int) -> list[Slot]:
    """Returns the slots that stay: the first ones, so that stock and what was never counted go first."""
    kept: list[Slot] = []
    for slot in before.slots if before is not None else ():
        if slot.component == component and count > 0:
            keep = min(slot.count, count)
            kept.append(slot if keep == slot.count else replace(slot, count=keep))
            count -= keep
    if before is not None and count > 0:
        # Replicas that were placed without slots (read from a document) stay without.
        placed = dict(before.components).get(component, 0)
        covered = sum(slot.count for slot in before.slots if slot.component == component)
        bare = min(count, max(0, placed - covered))
        if bare:
            kept.append(Slot(component, "", bare))
    return kept


def _preferred(draft: Draft, member: Member, chosen: Way, count: int) -> Way:
    """Returns the first way that takes what the cluster was really given."""
    for way in ways_in(draft, member, count):
        if way.variant == chosen.variant and way.parts == chosen.parts:
            return chosen
        running, stock = room_in(draft, member, way, 0)
        if running + stock >= count:
            return way
    return chosen


def _take(member: Member, part: Part, count: int, way: Way, *, stock: bool) -> list[Slot]:
    member.settle()
    slots: list[Slot] = []
    left = count
    unit, variant = way.unit, way.variant
    if part.virtual is not None:
        for node in member.virtual_nodes(part):
            taken = node.take(part.virtual.model, part.virtual.gpus, left)
            if taken:
                slots.append(Slot(part.component, node.name, taken, Source.VIRTUAL, unit, variant))
                left -= taken
    else:
        for source, take in SOURCES if stock else SOURCES[:1]:
            for pool in member.pools:
                if not part.takes(pool.node_class):
                    continue
                taken = take(pool, part.shape, left)
                if taken:
                    slots.append(Slot(part.component, pool.name, taken, source, unit, variant))
                    left -= taken
    if left:
        # Placed whether it fits or not (static weights, copies): nothing was promised, so nothing is held.
        slots.append(Slot(part.component, "", left, Source.RUNNING, unit, variant))
    return slots


def _take_packed(draft: Draft, member: Member, slots: tuple[Slot, ...]) -> None:
    before = draft.before.get(member.name)
    if before is not None or draft.mode is Mode.FRESH:
        draft.state.fleet.touch(member)
        return
    member.settle()
    way = draft.way_of[member.name]
    pools = {pool.name: pool for pool in member.pools}
    nodes = {node.name: node for node in member.virtual}
    for slot in slots:
        part = way.part(slot.component)
        if part is None or not slot.node_class:
            continue
        if part.virtual is not None:
            nodes[slot.node_class].take(part.virtual.model, part.virtual.gpus, slot.count)
        elif slot.source is Source.RUNNING:
            pools[slot.node_class].take_running(part.shape, slot.count)
        else:
            pools[slot.node_class].take_stock(part.shape, slot.count)
    draft.taken.add(member.name)


_RANK = {Source.RUNNING: 0, Source.VIRTUAL: 1, Source.ELASTIC: 2}


def merged(draft: Draft, slots: list[Slot], *, sort: bool = True) -> tuple[Slot, ...]:
    """Returns slots with equal ones together; sorted, so that what goes first when scaling in is last."""
    result = add_up(slots)
    if sort:
        # The last unit, then stock, and what was never counted, last: scaling in takes from the end.
        result.sort(key=lambda s: (unit_fill.rank(draft, s), not s.node_class, _RANK[s.source]))
    return tuple(result)
