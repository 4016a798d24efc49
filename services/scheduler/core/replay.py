"""A past decision made again: a state of nothing but what the decision saw, and the same `settle` on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from gpufleet.model.placement import Assignment, Placement, Source, Version
from gpufleet.model.selectors import Toleration
from gpufleet.model.workload import PodShape
from services.scheduler.core import commit, settle, tables
from services.scheduler.core import events as happened
from services.scheduler.core.blocks import Blocks
from services.scheduler.core.clusters_seen import inventory_of, kind_of, spec_of
from services.scheduler.core.evidence import ClassSeen, ClusterSeen, Evidence, Other, UnitUse
from services.scheduler.core.member import Member
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.pool import Pool
from services.scheduler.core.queue import Line
from services.scheduler.core.recalled import Recalled
from services.scheduler.core.reserve import Hold, Holding
from services.scheduler.core.shapes import Shape
from services.scheduler.core.shares_seen import placement_of
from services.scheduler.core.state import Entry, State
from services.scheduler.core.unit_use import Use
from services.scheduler.core.units import Part

_ALL = 10**9
# What no node has, so that pods which ask for it are a debt.
_NOWHERE = PodShape((("gpufleet.io/debt", 1),), tolerations=(Toleration(operator="Exists"),))


def replay(evidence: Evidence, *, everything: bool = False) -> Placement | None:
    """Returns the placement that follows from what a decision saw; None if none does.

    With ``everything`` it names every cluster that it knows, as it does where not all clusters are known: which of them
    the record had a place for cannot be told then.
    """
    entry, out = _settled(evidence, everything=everything)
    return _written(out, entry.key) or entry.placement


def consequences(evidence: Evidence, workload: str) -> list[Placement]:
    """Returns what a decision makes of another workload whose place it takes, cluster by cluster."""
    _, out = _settled(evidence, everything=False)
    return [entry.placement for entry in out.history if entry.workload == workload]


def _written(out: Outputs, workload: str) -> Placement | None:
    return next((write.placement for write in out.placements if write.workload == workload), None)


def _settled(evidence: Evidence, *, everything: bool) -> tuple[Entry, Outputs]:
    settings, now = evidence.settings, evidence.now
    if everything or evidence.more:
        settings = replace(settings, reason_clusters=_ALL)
    state = State(settings)
    state.epoch, state.active = evidence.epoch, True
    out = Outputs()
    tables.apply(tables.Batch(state, now, out), _events(evidence))
    for other in evidence.others:
        _put_other(state, other, now)
    entry = _put_entry(state, evidence)
    state.quotas.recall((use.name, use.used, use.firm, use.jobs) for use in evidence.use)
    state.ranked = evidence.ranked
    line = evidence.line
    first = [] if line.first is None else [line.first]
    state.queue.recall(line.name, Line([], first, line.kept_for, line.kept, line.unit), line.ahead)
    for key, clusters in evidence.required:
        state.required_by.put(key, frozenset({entry.key}), clusters)
    state.recalled = Recalled(
        dict(_usage(evidence.unit_use)),
        _terminating(evidence.unit_use),
        evidence.line.beside,
        evidence.taking,
        dict(evidence.yields),
    )
    state.mix.recall(tuple((state.fleet.catalog.shape(pod), weight) for pod, weight in evidence.mix))
    shape = None
    if evidence.workload is not None and len(evidence.workload.components) == 1:
        shape = state.fleet.catalog.shape(evidence.workload.components[0].shape)
    for cluster in evidence.clusters:
        _recall(state, evidence, cluster, shape)
    entry.held_in, entry.expired = set(evidence.held_in), evidence.expired
    for name in evidence.held_in:
        state.fleet.member(name).held.setdefault(entry.key, Holding(Version(), ()))
    state.pending.clear()
    out = Outputs()
    settle.settle(state, entry, evidence.mode, now, out)
    return entry, out


def _events(evidence: Evidence) -> Iterator[happened.Event]:
    for cluster in evidence.clusters:
        inventory, spec = inventory_of(evidence, cluster), spec_of(evidence, cluster)
        if inventory is not None:
            yield happened.InventoryChanged(inventory)
        if spec is not None:
            yield happened.ClusterRegistered(spec)
        elif cluster.removed:
            yield happened.ClusterRemoved(cluster.name)
    rules: list[happened.Policy] = [rule for other in evidence.others for rule in other.policies]
    rules += [*evidence.policies, *evidence.overrides, *evidence.classes, *evidence.queues]
    rules += [rule for rule in (evidence.units, evidence.tree) if rule is not None]
    for rule in rules:
        yield happened.PolicyChanged(rule)


def _put_other(state: State, other: Other, now: float) -> None:
    entry = state.entry(other.key)
    entry.scale, entry.arrival = other.scale, other.arrival
    entry.set_workload(other.workload)
    entry.applied = other.applied
    entry.pods = {pods.cluster: pods for pods in other.pods}
    if other.workload is not None:
        state.in_namespace.setdefault(other.workload.namespace, set()).add(other.key)
    commit.put(state, entry, placement_of(other.placement, other.shares), now)


def _put_entry(state: State, evidence: Evidence) -> Entry:
    entry = state.entry(evidence.key)
    entry.scale, entry.arrival = evidence.scale, evidence.arrival
    entry.set_workload(evidence.workload)
    entry.deleted, entry.unreadable = evidence.deleted, evidence.unreadable
    entry.eviction, entry.applied = evidence.eviction, evidence.applied
    entry.pods = {pods.cluster: pods for pods in evidence.pods}
    entry.observations = {seen.cluster: seen for seen in evidence.observations}
    entry.gone = set(evidence.gone)
    for alike in evidence.copies:
        for cluster, incarnation in zip(alike.clusters, alike.incarnations, strict=True):
            entry.assignments[cluster] = Assignment(
                entry.key,
                cluster,
                alike.version,
                alike.state,
                patches=alike.patches,
                incarnation=incarnation,
                job=alike.job,
            )
    if evidence.workload is not None:
        state.in_namespace.setdefault(evidence.workload.namespace, set()).add(entry.key)
    if evidence.before is not None:
        commit.put(state, entry, placement_of(evidence.before, evidence.before_shares), evidence.now)
    return entry


def _usage(uses: Iterable[UnitUse]) -> Iterator[tuple[tuple[str, str], Use]]:
    return (((use.cluster, use.unit), Use(use.pods, dict(use.amounts))) for use in uses)


def _terminating(uses: Iterable[UnitUse]) -> dict[tuple[str, str], int]:
    return {(use.cluster, use.unit): use.terminating for use in uses if use.terminating is not None}


def _recall(state: State, evidence: Evidence, cluster: ClusterSeen, shape: Shape | None) -> None:
    """Gives a cluster the room that the decision saw, in place of its inventory less the reservations."""
    member = state.fleet.member(cluster.name)
    # What is held is out of the room already, unless it is told.
    member.held = {key: Holding(held.version, ()) for key, held in member.held.items()}
    for hold in cluster.holds:
        part = Part(hold.component, state.fleet.catalog.shape(hold.shape))
        known = member.held.get(hold.workload)
        before = known.holds if known is not None else ()
        held = Hold(part, hold.pool, hold.count, hold.source, hold.provisioning)
        member.held[hold.workload] = Holding(hold.version, (*before, held))
    for seen in cluster.classes:
        pool = member.pool(kind_of(evidence, seen).name)
        if pool is not None:
            pool.recall(*_blocks(seen, pool, shape))
    for name, doubt in cluster.doubts:
        state.fleet.set_doubt(member, name, doubt)
    virtual = {name: dict(left) for name, left in cluster.virtual}
    for node in member.virtual:
        if node.name in virtual:
            node.recall(virtual[node.name])
    if cluster.debt and member.pools and not cluster.holds:
        _owe(state, member, cluster.debt)
    state.fleet.touch(member)


def _blocks(seen: ClassSeen, pool: Pool, shape: Shape | None) -> tuple[Blocks | None, tuple[int, Blocks] | None]:
    if seen.rooms is None or shape is None:
        running = None if seen.running is None else _as_dict(seen.running)
        return running, None if seen.fresh is None else (seen.fresh, _as_dict(seen.coming))
    here, stock, coming = seen.rooms
    each = shape.fitter(pool.layout).fit(pool.allocatable)
    fresh = (stock - coming) // each if each else 0
    return _with_room(pool, shape, here), (fresh, _with_room(pool, shape, coming))


def _as_dict(blocks: tuple[tuple[int, ...], ...]) -> Blocks:
    return {tuple(block[1:]): block[0] for block in blocks}


def _with_room(pool: Pool, shape: Shape, count: int) -> Blocks:
    """Returns blocks with room for just so many pods of a shape: empty nodes, and one that is partly used."""
    fitter = shape.fitter(pool.layout)
    each = fitter.fit(pool.allocatable)
    if not count or not each:
        return {}
    blocks = {pool.allocatable: count // each} if count >= each else {}
    if count % each:
        blocks[fitter.after(pool.allocatable, each - count % each)] = 1
    return blocks


def _owe(state: State, member: Member, debt: int) -> None:
    part = Part("", state.fleet.catalog.shape(_NOWHERE))
    member.held["//"] = Holding(Version(), (Hold(part, member.pools[0].name, debt, Source.RUNNING),))
