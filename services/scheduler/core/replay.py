"""A past decision made again: a state of nothing but what the decision saw, and the same `settle` on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from gpufleet.model.cluster import Inventory
from gpufleet.model.placement import Assignment, ClusterShare, Placement, Source, Version
from gpufleet.model.reasons import Code, Reason
from gpufleet.model.selectors import Toleration
from gpufleet.model.workload import PodShape
from services.scheduler.core import commit, settle, tables
from services.scheduler.core import events as happened
from services.scheduler.core.blocks import Blocks
from services.scheduler.core.capacity import Member
from services.scheduler.core.evidence import ClassSeen, ClusterSeen, Evidence, Other, UnitUse
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.pool import Pool
from services.scheduler.core.queue import Line
from services.scheduler.core.recalled import Recalled
from services.scheduler.core.reserve import Hold, Holding
from services.scheduler.core.shapes import Shape
from services.scheduler.core.state import Entry, State
from services.scheduler.core.unit_use import Use
from services.scheduler.core.units import Part

_ALL = 10**9
# Reasons whose words tell of free blocks.
_OF_BLOCKS = frozenset({Code.INSUFFICIENT_RESOURCES, Code.NO_STOCK, Code.STOCK_NOT_TRUSTED, Code.GANG_DOES_NOT_FIT})
# What no node has, so that pods which ask for it are a debt.
_NOWHERE = PodShape((("gpufleet.io/debt", 1),), tolerations=(Toleration(operator="Exists"),))


def replay(evidence: Evidence, *, everything: bool = False) -> Placement | None:
    """Returns the placement that follows from what a decision saw; None if none does.

    With ``everything`` it names every cluster that it knows, as it does where not all clusters are known: which of them
    the record had a place for cannot be told then.
    """
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
    state.recalled = Recalled(dict(_usage(evidence.unit_use)), _terminating(evidence.unit_use), evidence.line.beside)
    state.mix.recall(tuple((state.fleet.catalog.shape(pod), weight) for pod, weight in evidence.mix))
    shape = None
    if evidence.workload is not None and len(evidence.workload.components) == 1:
        shape = state.fleet.catalog.shape(evidence.workload.components[0].shape)
    for cluster in evidence.clusters:
        _recall(state, cluster, shape)
    entry.held_in, entry.expired = set(evidence.held_in), evidence.expired
    for name in evidence.held_in:
        state.fleet.member(name).held.setdefault(entry.key, Holding(Version(), ()))
    state.pending.clear()
    out = Outputs()
    settle.settle(state, entry, evidence.mode, now, out)
    found = next((write.placement for write in out.placements if write.workload == entry.key), None)
    return found if found is not None else entry.placement


def _events(evidence: Evidence) -> Iterator[happened.Event]:
    for cluster in evidence.clusters:
        if cluster.inventory is not None:
            yield happened.InventoryChanged(_inventory(cluster, cluster.inventory))
        if cluster.spec is not None:
            yield happened.ClusterRegistered(cluster.spec)
        elif cluster.removed:
            yield happened.ClusterRemoved(cluster.name)
    rules: list[happened.Policy] = [other.policy for other in evidence.others if other.policy is not None]
    rules += [*evidence.policies, *evidence.overrides, *evidence.classes, *evidence.queues]
    rules += [rule for rule in (evidence.units, evidence.tree) if rule is not None]
    for rule in rules:
        yield happened.PolicyChanged(rule)


def _inventory(cluster: ClusterSeen, inventory: Inventory) -> Inventory:
    """Returns the inventory with what was held counted as used in the namespace's quotas."""
    if not cluster.held:
        return inventory
    held = dict(cluster.held)
    quotas = []
    for quota in inventory.quotas:
        used = dict(quota.used)
        for name in quota.bounds:
            used[name] = used.get(name, 0) + held.get(name, 0)
        quotas.append(replace(quota, used=tuple(sorted(used.items()))))
    return replace(inventory, quotas=tuple(quotas))


def _put_other(state: State, other: Other, now: float) -> None:
    entry = state.entry(other.key)
    entry.scale, entry.arrival = other.scale, other.arrival
    entry.set_workload(other.workload)
    entry.pods = {pods.cluster: pods for pods in other.pods}
    if other.workload is not None:
        state.in_namespace.setdefault(other.workload.namespace, set()).add(other.key)
    commit.put(state, entry, other.placement, now)


def _put_entry(state: State, evidence: Evidence) -> Entry:
    entry = state.entry(evidence.key)
    entry.scale, entry.arrival = evidence.scale, evidence.arrival
    entry.set_workload(evidence.workload)
    entry.deleted, entry.unreadable = evidence.deleted, evidence.unreadable
    entry.eviction, entry.applied = evidence.eviction, evidence.applied
    entry.pods = {pods.cluster: pods for pods in evidence.pods}
    entry.observations = {seen.cluster: seen for seen in evidence.observations}
    entry.gone = set(evidence.gone)
    for c in evidence.copies:
        entry.assignments[c.cluster] = Assignment(
            entry.key, c.cluster, c.version, c.state, patches=c.patches, incarnation=c.incarnation, job=c.job
        )
    if evidence.workload is not None:
        state.in_namespace.setdefault(evidence.workload.namespace, set()).add(entry.key)
    if evidence.before is not None:
        commit.put(state, entry, evidence.before, evidence.now)
    return entry


def _usage(uses: Iterable[UnitUse]) -> Iterator[tuple[tuple[str, str], Use]]:
    return (((use.cluster, use.unit), Use(use.pods, dict(use.amounts))) for use in uses)


def _terminating(uses: Iterable[UnitUse]) -> dict[tuple[str, str], int]:
    return {(use.cluster, use.unit): use.terminating for use in uses if use.terminating is not None}


def _recall(state: State, cluster: ClusterSeen, shape: Shape | None) -> None:
    """Gives a cluster the room that the decision saw, in place of its inventory less the reservations."""
    member = state.fleet.member(cluster.name)
    # What is held is out of the room already.
    member.held = {key: Holding(held.version, ()) for key, held in member.held.items()}
    for seen in cluster.classes:
        pool = member.pool(seen.name)
        if pool is not None:
            pool.recall(*_blocks(seen, pool, shape))
    for name, doubt in cluster.doubts:
        state.fleet.set_doubt(member, name, doubt)
    virtual = {name: dict(left) for name, left in cluster.virtual}
    for node in member.virtual:
        if node.name in virtual:
            node.recall(virtual[node.name])
    if cluster.debt and member.pools:
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


def differences(recorded: Placement, again: Placement | None, evidence: Evidence) -> list[str]:
    """Returns in which points a decision that was made again is another one, each in a sentence."""
    if again is None:
        return ["nothing follows from what it saw"]
    found = []
    for name, before, after in (
        ("verdict", recorded.verdict.value, again.verdict.value),
        ("policy", recorded.policy or "none", again.policy or "none"),
        ("uid", recorded.uid, again.uid),
        ("pods wanted", recorded.replicas, again.replicas),
        ("clusters to be left", list(recorded.leaving), list(again.leaving)),
        ("queue position", recorded.queue_position, again.queue_position),
        ("queue", recorded.queue, again.queue),
        ("priority", recorded.priority, again.priority),
        ("waiting since", recorded.waiting_since, again.waiting_since),
        ("inputs", dict(recorded.inputs), dict(again.inputs)),
        ("waits in units", list(recorded.unit_waits), list(again.unit_waits)),
    ):
        if before != after:
            found.append(f"{name}: {before} was recorded, {after} follows")
    found += _shares(recorded, again)
    found += _reasons(recorded.reasons, again.reasons, evidence)
    return found


def _shares(recorded: Placement, again: Placement) -> Iterator[str]:
    for name in sorted({share.cluster for share in (*recorded.shares, *again.shares)}):
        before, after = recorded.share(name), again.share(name)
        if before != after:
            yield f"{name}: {_share(before)} was recorded, {_share(after)} follows"


def _share(share: ClusterShare | None) -> str:
    if share is None:
        return "nothing"
    where = ", ".join(f"{s.count} {s.source.value} on {s.node_class or 'any node'}" for s in share.slots)
    pods = ", ".join(f"{count} {name}" for name, count in share.components)
    return f"{pods or 'the object'}{f' ({where})' if where else ''}"


def _reasons(recorded: tuple[Reason, ...], again: tuple[Reason, ...], evidence: Evidence) -> Iterator[str]:
    """Compares reasons; those that only count clusters where not all of them are known are left out."""
    known = {cluster.name: cluster for cluster in evidence.clusters}
    blind = {name for name, cluster in known.items() if any(seen.rooms is not None for seen in cluster.classes)}
    counted = evidence.more > 0
    before = {_reason(reason, blind) for reason in recorded if not (counted and _counts(reason))}
    after = {_reason(reason, blind) for reason in again if not (counted and _counts(reason))}
    for reason in sorted(before - after):
        yield f"reason {' '.join(filter(None, reason))} was recorded and does not follow"
    for code, cluster, message in sorted(after - before):
        if not (counted and cluster):
            yield f"reason {' '.join(filter(None, (code, cluster, message)))} follows and was not recorded"


def _reason(reason: Reason, blind: set[str]) -> tuple[str, str, str]:
    # Of some clusters only the room is known, not the free blocks that the words are about.
    wordless = reason.cluster in blind and reason.code in _OF_BLOCKS
    return (reason.code.value, reason.cluster, "" if wordless else reason.message)


def _counts(reason: Reason) -> bool:
    return not reason.cluster and reason.message.endswith(" more clusters")
