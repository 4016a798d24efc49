"""The room of a whole decision, taken, booked and given back in one go: one hold in each of its clusters.

Each cluster could do it by itself (`Member.hold`); together they are told to the fleet's columns once.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpufleet.model.placement import Version
from services.scheduler.core.capacity import Fleet, Member
from services.scheduler.core.pool import Pool
from services.scheduler.core.reserve import Hold, Holding
from services.scheduler.core.shapes import Shape

# A cluster, what is held there, and the pool if that has taken all of it by `take`.
Made = tuple[Member, tuple[Hold, ...], Pool | None]


def take(member: Member, shape: Shape, count: int) -> Pool | None:
    """Takes room on running nodes for all of ``count`` pods from the first pool that has some, and returns this.

    None, and nothing is taken, if that pool has less or it is not that simple. The fleet is not told.
    """
    if member.unsettled:
        member.settle()
    if member.loose:
        return None
    for pool, fitter in member.takers(shape):
        taken = pool.take_whole(fitter, count)
        if taken:
            return pool if taken > 0 else None
    return None


def reserve(fleet: Fleet, workload: str, version: Version, made: Iterable[Made]) -> None:
    """Sets what a workload holds in clusters where it held nothing; the room was taken from the pools already."""
    alike: dict[int, Holding] = {}
    for member, holds, pool in made:
        held = alike.get(id(holds))
        if held is None:
            held = alike[id(holds)] = Holding(version, holds)
        if pool is None:
            fleet.hold(member, workload, held, taken=True)
        else:
            member.held[workload] = held
            pool.book_whole(holds[0].count)


def release(fleet: Fleet, workload: str, clusters: Iterable[str]) -> None:
    """Gives back all that a workload holds in some clusters."""
    shape: Shape | None = None
    pools: list[Pool] = []
    counts: list[int] = []
    for name in clusters:
        member = fleet.members[name]
        holds = member.held[workload].holds
        pool = None
        if len(holds) == 1 and not member.dirty:
            hold = holds[0]
            if shape is None or shape is hold.part.shape:
                pool = member.give_back(hold)
        if pool is None:
            fleet.hold(member, workload, None, taken=False)
        else:
            del member.held[workload]
            shape = hold.part.shape
            pools.append(pool)
            counts.append(-hold.count)
    if shape is not None:
        fleet.moved(shape, pools, counts)
