"""The room of a whole decision, taken and given back in one go, where each cluster gives it from one pool.

Each cluster could do it by itself (`Member.hold`); together they are told to the fleet's columns once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

from gpufleet.model.placement import Version
from services.scheduler.core.fleet import Fleet
from services.scheduler.core.member import Member
from services.scheduler.core.pool import Pool
from services.scheduler.core.reserve import Hold, Holding
from services.scheduler.core.shapes import Fitter, Shape

# So many pods, of one shape, in one pool of a cluster, and how the shape fits that.
Row = tuple[Member, Pool, Fitter, int]
_MEMBER, _POOL, _COUNT = itemgetter(0), itemgetter(1), itemgetter(3)


@dataclass(slots=True)
class Booked:
    """Pods of one shape in one pool of each of some clusters."""

    shape: Shape
    rows: list[Row]

    def members(self) -> list[Member]:
        """Returns the clusters."""
        return list(map(_MEMBER, self.rows))

    def pools(self) -> list[Pool]:
        """Returns the pool of each."""
        return list(map(_POOL, self.rows))

    def counts(self) -> list[int]:
        """Returns the pods in each."""
        return list(map(_COUNT, self.rows))


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
    rows: list[Row] = []
    rest: list[tuple[Member, int]] = []
    for member, count in wanted:
        if member.dirty or member.stale_pools:
            member.settle()
        taken = 0
        for pool, fitter in (member.takers_of.get(shape.id) or member.takers(shape)) if not member.loose else ():
            taken = pool.take_whole(fitter, count)
            if taken:
                break
        if taken > 0:
            rows.append((member, pool, fitter, count))
        else:
            rest.append((member, count))
    booked = Booked(shape, rows)
    fleet.moved(shape, booked.pools(), booked.counts(), -1)
    return booked, rest


def reserve(fleet: Fleet, workload: str, version: Version, made: Made) -> Booked | None:
    """Sets what a workload holds in clusters where it held nothing; the room was taken from the pools already.

    Returns what is booked, if that is all.
    """
    alike: dict[int, Holding] = {}
    last = Holding(version, ())
    for member, holds in zip(made.booked.members(), made.holds, strict=True):
        if holds is not last.holds:
            last = alike.get(id(holds)) or alike.setdefault(id(holds), Holding(version, holds))
        member.held[workload] = last
    for member, holds in made.others:
        fleet.hold(member, workload, Holding(version, holds), taken=True)
    return None if made.others else made.booked


def release(fleet: Fleet, workload: str, booked: Booked) -> None:
    """Gives back all that a workload has reserved."""
    plain = Booked(booked.shape, [])
    for row in booked.rows:
        member, pool, fitter, count = row
        if member.dirty or member.stale_pools or member.loose or pool.retired or not pool.give_back(fitter, count):
            fleet.hold(member, workload, None, taken=False)
        else:
            del member.held[workload]
            plain.rows.append(row)
    fleet.moved(plain.shape, plain.pools(), plain.counts(), 1)
