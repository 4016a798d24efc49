"""The common case, made cheap: one component in one way, divided by available replicas, and nothing placed yet.

What it does is what `pour` and `slots` do (a test holds it to them), over columns, and with shares that are shared: a
cluster gives the same one to every workload that gets as many pods on the same nodes.
"""

from __future__ import annotations

from operator import attrgetter, itemgetter

from gpufleet.model.placement import ClusterShare, Slot, Source
from services.scheduler.core.booking import Made, take
from services.scheduler.core.capacity import Fleet, Given, Member, ShareKey
from services.scheduler.core.divide import pour_columns
from services.scheduler.core.draft import Draft, TierRoom
from services.scheduler.core.gang import add_up
from services.scheduler.core.pool import SOURCES, Pool
from services.scheduler.core.reserve import Hold
from services.scheduler.core.units import Part

# How many shares a cluster remembers, and the fleet of those that differ in more than the cluster.
_KNOWN = 128
_ALIKE = 4096
_FIRST, _SECOND = itemgetter(0), itemgetter(1)
_NAME, _CLUSTER = attrgetter("name"), attrgetter("cluster")


def divide(draft: Draft, rooms: list[TierRoom], replicas: int, *, last_first: bool) -> dict[str, int]:
    """Returns replicas by cluster, of those that get any, and notes the clusters for `shares`."""
    divided = pour_columns(
        [(room.running, room.stock, room.coming) for room in rooms],
        replicas,
        last_first=last_first,
        existing_first=draft.policy.existing_capacity_first,
    )
    named = [
        (room.members[place].name, room.members[place], count)
        for room, counts in zip(rooms, divided, strict=True)
        for place, count in counts.items()
    ]
    named.sort()
    counts = {name: count for name, _, count in named}
    draft.divided = (counts, [(member, count) for _, member, count in named])
    return counts


def shares(draft: Draft, divided: list[tuple[Member, int]]) -> tuple[ClusterShare, ...]:
    """Returns the shares, and takes their slots out of the pools for good."""
    part, fleet = draft.ways[0].parts[0], draft.state.fleet
    booked, rest = take(fleet, part.shape, divided)
    key = (part.component, part.shape.id, 0)
    found: list[Given] = []
    for member, pool, count in zip(booked.members, booked.pools, booked.counts, strict=True):
        if count != key[2]:
            key = (part.component, part.shape.id, count)
        by_pool = member.shares.get(key)
        given = by_pool.get(pool.name) if by_pool is not None else None
        found.append(_known(fleet, member, part, pool, key) if given is None else given)
    made, holds = list(map(_FIRST, found)), list(map(_SECOND, found))
    others = []
    for member, count in rest:
        share, held = _spread(member, part, count, stock=draft.stock)
        made.append(share)
        others.append((member, held))
    if others:
        made.sort(key=_CLUSTER)
    draft.made = Made(booked, holds, others)
    draft.taken.update(map(_NAME, map(_FIRST, divided)))
    return tuple(made)


def _known(fleet: Fleet, member: Member, part: Part, pool: Pool, key: ShareKey) -> Given:
    """Returns a share and its holds, and remembers them; clusters share what is the same in them."""
    if len(member.shares) >= _KNOWN:
        member.shares.clear()
    if len(fleet.alike) >= _ALIKE:
        fleet.alike.clear()
    alike = fleet.alike.get((key, pool.name))
    if alike is None:
        slots = [Slot(part.component, pool.name, key[2], Source.RUNNING, None)]
        alike = fleet.alike[key, pool.name] = _made(member, part, key[2], slots)
    share, holds = alike
    made = member.shares.setdefault(key, {})[pool.name] = (
        ClusterShare(member.name, share.components, share.slots),
        holds,
    )
    return made


def _spread(member: Member, part: Part, count: int, *, stock: bool) -> Given:
    """Takes a share from pools, one after another."""
    slots: list[Slot] = []
    left = count
    for source, take_from in SOURCES if stock else SOURCES[:1]:
        for pool in member.pools:
            taken = take_from(pool, part.shape, left)
            if taken:
                slots.append(Slot(part.component, pool.name, taken, source, None))
                left -= taken
    if left:
        slots.append(Slot(part.component, "", left, Source.RUNNING, None))
    return _made(member, part, count, add_up(slots))


def _made(member: Member, part: Part, count: int, slots: list[Slot]) -> Given:
    share = ClusterShare(member.name, ((part.component, count),), tuple(slots))
    return share, tuple(Hold(part, slot.node_class, slot.count, slot.source) for slot in slots)
