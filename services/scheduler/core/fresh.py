"""The common case, made cheap: one component in one way, divided by available replicas, and nothing placed yet.

What it does is what `pour` and `slots` do (a test holds it to them), over columns, and with shares that are shared: a
cluster gives the same one to every workload that gets as many pods on the same nodes.
"""

from __future__ import annotations

from operator import attrgetter, itemgetter
from typing import cast

from gpufleet.model.placement import ClusterShare, Slot, Source
from services.scheduler.core.booking import Booked, Made, take
from services.scheduler.core.divide import pour_columns
from services.scheduler.core.draft import Draft, TierRoom
from services.scheduler.core.fleet import Fleet, Given, ShareKey
from services.scheduler.core.gang import add_up
from services.scheduler.core.member import Member
from services.scheduler.core.pool import SOURCES
from services.scheduler.core.reserve import Hold
from services.scheduler.core.units import Part

# How many shares the fleet remembers.
_GIVEN = 262_144
_FIRST, _SECOND = itemgetter(0), itemgetter(1)
_CLUSTER = attrgetter("cluster")


def divide(draft: Draft, rooms: list[TierRoom], replicas: int, *, last_first: bool) -> dict[str, int]:
    """Returns replicas by cluster, of those that get any, and notes the clusters for `shares`."""
    divided = pour_columns(
        [(room.running, room.stock, room.coming) for room in rooms],
        replicas,
        last_first=last_first,
        existing_first=draft.policy.existing_capacity_first,
    )
    given: list[tuple[Member, int]] = []
    for room, seats in zip(rooms, divided, strict=True):
        places = sorted(seats)  # a group is in order of name
        given += zip(map(room.members.__getitem__, places), map(seats.__getitem__, places), strict=True)
    if len(rooms) > 1:
        given.sort(key=_by_name)
    counts = {member.name: count for member, count in given}
    draft.divided = (counts, given)
    return counts


def _by_name(given: tuple[Member, int]) -> str:
    return given[0].name


def shares(draft: Draft, divided: list[tuple[Member, int]]) -> tuple[ClusterShare, ...]:
    """Returns the shares, and takes their slots out of the pools for good."""
    part, fleet = draft.ways[0].parts[0], draft.state.fleet
    booked, rest = take(fleet, part.shape, divided)
    found = _given(fleet, part, booked)
    made, holds = list(map(_FIRST, found)), list(map(_SECOND, found))
    others = []
    for member, count in rest:
        share, held = _spread(member, part, count, stock=draft.stock)
        made.append(share)
        others.append((member, held))
    if others:
        made.sort(key=_CLUSTER)
    draft.made = Made(booked, holds, others)
    draft.taken.update([member.name for member, _ in divided])
    return tuple(made)


def _given(fleet: Fleet, part: Part, booked: Booked) -> list[Given]:
    """Returns the shares and holds of what is booked: those that were given before, where there are some."""
    component, shape = part.component, part.shape.id
    keys = [(member.name, pool.name, count, component, shape) for member, pool, _, count in booked.rows]
    found = list(map(fleet.given.get, keys))
    if None not in found:
        return cast("list[Given]", found)
    return [_remember(fleet, part, key) if known is None else known for key, known in zip(keys, found, strict=True)]


def _remember(fleet: Fleet, part: Part, key: ShareKey) -> Given:
    """Returns a new share with its holds; clusters share what is the same in theirs."""
    cluster, pool, count, *_ = key
    if len(fleet.given) >= _GIVEN:
        fleet.given.clear()
        fleet.alike.clear()
    alike = fleet.alike.get(key[1:])
    if alike is None:
        slots = [Slot(part.component, pool, count, Source.RUNNING, None)]
        alike = fleet.alike[key[1:]] = _made(cluster, part, count, slots)
    share, holds = alike
    made = fleet.given[key] = (ClusterShare(cluster, share.components, share.slots), holds)
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
    return _made(member.name, part, count, add_up(slots))


def _made(cluster: str, part: Part, count: int, slots: list[Slot]) -> Given:
    share = ClusterShare(cluster, ((part.component, count),), tuple(slots))
    return share, tuple(Hold(part, slot.node_class, slot.count, slot.source) for slot in slots)
