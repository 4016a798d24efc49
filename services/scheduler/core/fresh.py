"""The common case, made cheap: one component in one way, divided by available replicas, and nothing placed yet.

What it does is what `pour` and `slots` do (a test holds it to them), over columns, and with shares that are shared: a
cluster gives the same one to every workload that gets as many pods on the same nodes.
"""

from __future__ import annotations

from gpufleet.model.placement import ClusterShare, Slot, Source
from services.scheduler.core.capacity import Member
from services.scheduler.core.divide import pour_columns
from services.scheduler.core.draft import Draft, TierRoom
from services.scheduler.core.gang import add_up
from services.scheduler.core.pool import SOURCES
from services.scheduler.core.reserve import Hold
from services.scheduler.core.units import Part

# How many shares a cluster remembers.
_KNOWN = 128


def divide(draft: Draft, rooms: list[TierRoom], replicas: int, *, last_first: bool) -> dict[str, int]:
    """Returns replicas by cluster, of those that get any, and notes the clusters for `shares`."""
    divided = pour_columns(
        [(room.running, room.stock, room.coming) for room in rooms],
        replicas,
        last_first=last_first,
        existing_first=draft.policy.existing_capacity_first,
    )
    found = [
        (room.members[place], count)
        for room, counts in zip(rooms, divided, strict=True)
        for place, count in counts.items()
    ]
    found.sort(key=_name)
    counts = {member.name: count for member, count in found}
    draft.divided = (counts, found)
    return counts


def _name(item: tuple[Member, int]) -> str:
    return item[0].name


def shares(draft: Draft, divided: list[tuple[Member, int]]) -> tuple[ClusterShare, ...]:
    """Returns the shares, and takes their slots out of the pools for good."""
    part = draft.ways[0].parts[0]
    made = []
    for member, count in divided:
        share, holds = _share(member, part, count, stock=draft.stock)
        made.append(share)
        draft.taken.add(member.name)
        draft.made.append((member, holds))
    return tuple(made)


def _share(member: Member, part: Part, count: int, *, stock: bool) -> tuple[ClusterShare, tuple[Hold, ...]]:
    member.settle()
    shape = part.shape
    for pool in member.pools:
        taken = pool.take_running(shape, count)
        if not taken:
            continue
        if taken == count:
            key = (part.component, shape.id, pool.name, count)
            known = member.shares.get(key)
            if known is None:
                if len(member.shares) >= _KNOWN:
                    member.shares.clear()
                known = member.shares[key] = _made(
                    member, part, count, [Slot(part.component, pool.name, count, Source.RUNNING, None)]
                )
            return known
        return _spread(member, part, count, Slot(part.component, pool.name, taken, Source.RUNNING, None), stock=stock)
    return _spread(member, part, count, None, stock=stock)


def _spread(
    member: Member, part: Part, count: int, first: Slot | None, *, stock: bool
) -> tuple[ClusterShare, tuple[Hold, ...]]:
    """Takes the rest of a share from several pools; what is full already gives nothing."""
    slots = [] if first is None else [first]
    left = count - (0 if first is None else first.count)
    for source, take in SOURCES if stock else SOURCES[:1]:
        for pool in member.pools:
            taken = take(pool, part.shape, left)
            if taken:
                slots.append(Slot(part.component, pool.name, taken, source, None))
                left -= taken
    if left:
        slots.append(Slot(part.component, "", left, Source.RUNNING, None))
    return _made(member, part, count, add_up(slots))


def _made(member: Member, part: Part, count: int, slots: list[Slot]) -> tuple[ClusterShare, tuple[Hold, ...]]:
    share = ClusterShare(member.name, ((part.component, count),), tuple(slots))
    return share, tuple(Hold(part, slot.node_class, slot.count, slot.source) for slot in slots)
