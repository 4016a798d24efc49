"""The room of a whole decision, taken and given back in one go, where each cluster gives it from one pool.

Each cluster could do it by itself (`Member.hold`); together they are told to the fleet's columns once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpufleet.model.placement import Version
from services.scheduler.core.capacity import Fleet, Member
from services.scheduler.core.pool import Pool
from services.scheduler.core.reserve import Hold, Holding
from services.scheduler.core.shapes import Fitter, Shape


@dataclass(slots=True)
class Booked:
    """So many pods of one shape in one pool of each of some clusters, as columns."""

    shape: Shape
    members: list[Member]
    pools: list[Pool]
    fitters: list[Fitter]
    counts: list[int]


@dataclass(slots=True)
class Made:
    """What a division has taken: ``booked`` with the holds of each, and ``others`` that several pools gave."""

    booked: Booked
    holds: list[tuple[Hold, ...]]
    others: list[tuple[Member, tuple[Hold, ...]]]


def take(fleet: Fleet, shape: Shape, wanted: Iterable[tuple[Member, int]]) -> tuple[Booked, list[tuple[Member, int]]]:
    """Takes room for pods on running nodes, and books it, wherever the first pool with room for some takes all.

    Returns also what is wanted of the other clusters, where nothing was taken. If no reservation follows, the clusters
    have to be touched.
    """
    members: list[Member] = []
    pools: list[Pool] = []
    fitters: list[Fitter] = []
    counts: list[int] = []
    rest: list[tuple[Member, int]] = []
    for member, count in wanted:
        if member.dirty or member.stale_pools:
            member.settle()
        takers = member.takers_of.get(shape.id)
        taken = 0
        for pool, fitter in (member.takers(shape) if takers is None else takers) if not member.loose else ():
            taken = pool.take_whole(fitter, count)
            if taken:
                break
        if taken <= 0:
            rest.append((member, count))
            continue
        members.append(member)
        pools.append(pool)
        fitters.append(fitter)
        counts.append(count)
    fleet.moved(shape, pools, counts, -1)
    return Booked(shape, members, pools, fitters, counts), rest


def reserve(fleet: Fleet, workload: str, version: Version, made: Made) -> Booked | None:
    """Sets what a workload holds in clusters where it held nothing; the room was taken from the pools already.

    Returns what is booked, if that is all.
    """
    alike: dict[int, Holding] = {}
    for member, holds in zip(made.booked.members, made.holds, strict=True):
        held = alike.get(id(holds))
        if held is None:
            held = alike[id(holds)] = Holding(version, holds)
        member.held[workload] = held
    for member, holds in made.others:
        fleet.hold(member, workload, Holding(version, holds), taken=True)
    return None if made.others else made.booked


def release(fleet: Fleet, workload: str, booked: Booked) -> None:
    """Gives back all that a workload has reserved."""
    pools: list[Pool] = []
    counts: list[int] = []
    for member, pool, fitter, count in zip(booked.members, booked.pools, booked.fitters, booked.counts, strict=True):
        plain = not (pool.retired or member.dirty or member.stale_pools or member.loose)
        if plain and pool.give_back(fitter, count):
            del member.held[workload]
            pools.append(pool)
            counts.append(count)
        else:
            fleet.hold(member, workload, None, taken=False)
    fleet.moved(booked.shape, pools, counts, 1)
