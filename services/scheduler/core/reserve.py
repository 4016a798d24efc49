"""The ledger of reservations (rule 3): what placements hold until the inventory shows it.

A placement holds ``assigned - bound - finished`` per component, on the node class and shape recorded in its slots.
Holds are refitted in (epoch, version) order; what no longer fits is a debt, and a cluster in debt shows no room. Where
the order cannot matter (`Pool`) a hold that comes or goes is an addition or a subtraction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from gpufleet.model.cluster import WorkloadPods
from gpufleet.model.placement import ClusterShare, Slot, Source, Version
from gpufleet.model.values import value
from services.scheduler.core.pool import Pool
from services.scheduler.core.shapes import Shape
from services.scheduler.core.units import Part, Way

if TYPE_CHECKING:
    from services.scheduler.core.member import Member


_SHAPE, _COUNT = itemgetter(0), itemgetter(1)
# Pods that are bound or finished, by component and unit; None: the unit is not known.
Served = dict[tuple[str, str | None], int]


@value(frozen=True, slots=True)
class Hold:
    """Room for ``count`` pods. An empty ``pool`` means any class, without a debt: nothing was promised.

    ``provisioning`` pods wait for nodes that are being created: their instances are out of stock already.
    """

    part: Part
    pool: str
    count: int
    source: Source
    provisioning: int = 0


# A hold on nodes to be created, its pods that running nodes have no room for, and its pool; None: any.
_Late = tuple[Hold, int, Pool | None]


@value(frozen=True, slots=True)
class Holding:
    """What one workload holds in one cluster, in the order in which it was taken."""

    version: Version
    holds: tuple[Hold, ...]


def requested(held: Mapping[str, Holding], namespace: str) -> dict[str, int]:
    """Returns what the holds of a namespace's workloads ask for, by resource."""
    found: dict[str, int] = {}
    for key, kept in held.items():
        if key.partition("/")[0] == namespace:
            for hold in kept.holds:
                for name, amount in hold.part.shape.pod.requests:
                    found[name] = found.get(name, 0) + amount * hold.count
    return found


def holding(version: Version, share: ClusterShare, ways: tuple[Way, ...], pods: WorkloadPods | None) -> Holding | None:
    """Returns what a share still holds, or None if every pod of it is bound or finished.

    Which pods are bound is not known by class, so the first slots (running nodes) count as served first.
    """
    known = dict(pods.components) if pods is not None else {}
    served: Served = {}
    for name, _ in share.components:
        if name in known:
            by_unit = {unit.unit: unit.bound + unit.finished for unit in known[name].units}
            served[name, None] = known[name].bound + known[name].finished - sum(by_unit.values())
            served.update({(name, unit): count for unit, count in by_unit.items()})
    covered: dict[str, int] = {}
    holds: list[Hold] = []
    for slot in share.slots:
        covered[slot.component] = covered.get(slot.component, 0) + slot.count
        _add(holds, slot, ways, served)
    for name, count in share.components:
        if count > covered.get(name, 0):
            _add(holds, Slot(name, "", count - covered.get(name, 0)), ways, served)
    for name, here in known.items():
        if here.provisioning:
            _claim(holds, name, here.provisioning)
    return Holding(version, tuple(holds)) if holds else None


def _add(holds: list[Hold], slot: Slot, ways: tuple[Way, ...], served: Served) -> None:
    done = 0
    for key in ((slot.component, slot.variant), (slot.component, None)):
        now = min(slot.count - done, served.get(key, 0))
        if now > 0:
            served[key] -= now
            done += now
    part = part_of(slot, ways)
    if slot.count > done and part is not None:
        holds.append(Hold(part, slot.node_class, slot.count - done, slot.source))


def _claim(holds: list[Hold], component: str, provisioning: int) -> None:
    """Notes pods that wait for nodes which are being created: those that were to have some first."""
    for elastic in (True, False):
        for i, hold in enumerate(holds):
            if hold.part.component == component and hold.pool and (hold.source is Source.ELASTIC) is elastic:
                count = min(hold.count, provisioning)
                if count:
                    holds[i] = replace(hold, provisioning=count)
                    provisioning -= count


def part_of(slot: Slot, ways: tuple[Way, ...]) -> Part | None:
    """Returns the part that a slot was taken for, or None if no way is known any more."""
    virtual = slot.source is Source.VIRTUAL
    candidates = [
        part for way in ways if way.variant == slot.variant and (part := way.part(slot.component)) is not None
    ]
    found = next((part for part in candidates if (part.virtual is not None) is virtual), None)
    if found is not None:
        return found
    # Of another edition of the policy, or from before it: what the pods ask for by themselves.
    candidates = candidates or [part for way in ways if (part := way.part(slot.component)) is not None]
    like = next((part for part in candidates if (part.virtual is not None) is virtual), None)
    like = like or next(iter(candidates), None)
    if like is None or virtual or like.plain is None:
        return like
    return Part(like.component, like.plain)


def enlist(member: Member, hold: Hold, sign: int) -> Pool | None:
    """Books a hold with its pool (``sign`` -1: gives it back) and returns the pool, if it has one of its own.

    The pool's room is not touched.
    """
    if _on_virtual(hold):
        member.on_virtual += sign
        return None
    pool = member.pool(hold.pool)
    if pool is None:
        member.loose += sign  # a class that is gone, or that was never named: any class
        return None
    shape = hold.part.shape
    if hold.source is Source.RUNNING and not hold.provisioning and shape.admitted(pool.identity):
        pool.book(shape.fitter(pool.layout), sign * hold.count)
    else:
        pool.ordered += sign * hold.count
    return pool


def refit(member: Member) -> None:
    """Takes every hold out of a cluster's inventory afresh and counts its debt in pods."""
    for pool in member.pools:
        pool.forget()
    member.loose = member.on_virtual = 0
    for held in member.held.values():
        for hold in held.holds:
            enlist(member, hold, 1)
    replay(member, member.pools, virtual=True)


def replay(member: Member, pools: Iterable[Pool], *, virtual: bool) -> None:
    """Brings some pools, and the virtual nodes, in step with the holds, and counts the cluster's debt in pods.

    Pools do not depend on each other unless a hold may use any of them (``loose``); then all have to be given.
    """
    if member.loose:
        for pool in pools:
            pool.reset()
        replayed = {pool.name: pool for pool in pools}
    else:
        replayed = {pool.name: pool for pool in pools if not pool.settle()}
        for pool in replayed.values():
            pool.reset()
    if virtual:
        member.other_debt = 0
        for node in member.virtual:
            node.reset()
    late: list[_Late] = []
    lent: set[Pool] = set()  # pools in which pods for nodes to be created found room on running ones
    runs: dict[Pool, list[tuple[Shape, int]]] = {}  # what is taken in turn where all of it is on running nodes
    if replayed or member.loose or (virtual and member.on_virtual):
        for _, held in sorted(member.held.items(), key=lambda item: (item[1].version, item[0])):
            for hold in held.holds:
                if _on_virtual(hold):
                    if virtual:
                        member.other_debt += _book_virtual(member, hold)
                elif (named := replayed.get(hold.pool)) is not None:
                    if not named.ordered and not member.loose:
                        runs.setdefault(named, []).append((hold.part.shape, hold.count))
                        continue
                    left = _book(hold, (named,))
                    if hold.source is Source.ELASTIC and left < hold.count:
                        lent.add(named)
                    if left and (hold.source is Source.ELASTIC or hold.provisioning or named in lent):
                        late.append((hold, left, named))
                    else:
                        named.debt += left
                elif member.loose:
                    left = _book(hold, member.pools)
                    if left and hold.source is Source.ELASTIC:
                        late.append((hold, left, None))
                    else:
                        member.other_debt += left
    for pool, taken in runs.items():
        _book_runs(pool, taken)
    if late:
        _book_late(member, late)
    member.debt = sum(pool.debt for pool in member.pools) + member.other_debt


def _on_virtual(hold: Hold) -> bool:
    return hold.source is Source.VIRTUAL and hold.part.virtual is not None


def _book_virtual(member: Member, hold: Hold) -> int:
    left = hold.count
    need = hold.part.virtual
    for node in member.virtual:
        if need is not None and left and node.name == hold.pool:
            left -= node.take(need.model, need.gpus, left)
    return left


def _book(hold: Hold, pools: Sequence[Pool]) -> int:
    """Takes a hold out of the running nodes of pools, and returns for how many of its pods there is no room."""
    left = hold.count
    for pool in pools:
        left -= pool.take_running(hold.part.shape, left)
    return left if hold.pool else 0


def _book_runs(pool: Pool, taken: Iterable[tuple[Shape, int]]) -> None:
    """Takes pods out of running nodes; equal ones, one after the other, at once."""
    for shape, run in groupby(taken, _SHAPE):
        count = sum(map(_COUNT, run))
        pool.debt += count - pool.take_running(shape, count)


def _book_late(member: Member, late: Sequence[_Late]) -> None:
    """Takes what running nodes have no room for out of nodes that are on their way, then out of stock.

    Which nodes are on their way follows from all pods that wait for one; the others may go beside those. Pods for
    running nodes are among them where others, for which nodes were to be created, have found room there instead.
    """
    for hold, left, named in late:
        if named is not None:
            named.bring(hold.part.shape, min(left, hold.provisioning))
    for hold, count, named in late:
        left = count - min(count, hold.provisioning)
        for pool in member.pools if named is None else (named,):
            left -= pool.hold_stock(hold.part.shape, left)
        if named is None:
            member.other_debt += left
        else:
            named.debt += left
