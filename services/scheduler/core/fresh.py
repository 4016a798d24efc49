"""The common case, made cheap: one component in one way, divided by available replicas, and nothing placed yet.

What it does is what `pour` and `slots` do (a test holds it to them), over columns, and with shares that are shared: a
cluster gives the same one to every workload that gets as many pods on the same nodes.
"""

from __future__ import annotations

from gpufleet.model.placement import ClusterShare, Slot, Source
from services.scheduler.core.booking import take
from services.scheduler.core.capacity import Fleet, Given, Member
from services.scheduler.core.divide import pour_columns
from services.scheduler.core.draft import Draft, TierRoom
from services.scheduler.core.gang import add_up
from services.scheduler.core.pool import SOURCES, Pool
from services.scheduler.core.reserve import Hold
from services.scheduler.core.units import Part

# How many shares a cluster remembers, and the fleet of those that differ in more than the cluster.
_KNOWN = 128
_ALIKE = 4096


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
    part, fleet = draft.ways[0].parts[0], draft.state.fleet
    made: list[ClusterShare] = []
    pools: list[Pool] = []
    counts: list[int] = []
    for member, count in divided:
        pool = take(member, part.shape, count)
        if pool is None:
            share, holds = _spread(member, part, count, stock=draft.stock)
        else:
            share, holds = _known(fleet, member, part, pool, count)
            pools.append(pool)
            counts.append(count)
        made.append(share)
        draft.made.append((member, holds, pool))
    draft.taken.update([member.name for member, _ in divided])
    fleet.moved(part.shape, pools, counts)
    return tuple(made)


def _known(fleet: Fleet, member: Member, part: Part, pool: Pool, count: int) -> Given:
    """Returns a share and its holds; clusters share what is the same in them."""
    key = (part.component, part.shape.id, pool.name, count)
    known = member.shares.get(key)
    if known is None:
        if len(member.shares) >= _KNOWN:
            member.shares.clear()
        if len(fleet.alike) >= _ALIKE:
            fleet.alike.clear()
        if key not in fleet.alike:
            slots = [Slot(part.component, pool.name, count, Source.RUNNING, None)]
            fleet.alike[key] = _made(member, part, count, slots)
        share, holds = fleet.alike[key]
        known = member.shares[key] = (ClusterShare(member.name, share.components, share.slots), holds)
    return known


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
