"""Applying one event to the tables, and noting which workloads have to be looked at because of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from gpufleet.model.policy import DivisionType
from services.scheduler.core import doubt, ledger, records, rules, yielding
from services.scheduler.core.divide import Mode
from services.scheduler.core.events import (
    AssignmentRead,
    ClusterRegistered,
    ClusterRemoved,
    Evicted,
    EvictionGone,
    FreezeChanged,
    InventoryChanged,
    InventoryGone,
    ObservationGone,
    Observed,
    PlacementRead,
    PodsChanged,
    PodsGone,
    PolicyChanged,
    PolicyRemoved,
    RescheduleRequested,
    Scaled,
    Started,
    Stopped,
    Tick,
    WorkloadDeleted,
    WorkloadSubmitted,
    WorkloadUnreadable,
)
from services.scheduler.core.inputs import pending_eviction
from services.scheduler.core.member import Member
from services.scheduler.core.outputs import Outputs
from services.scheduler.core.ranking import ranks
from services.scheduler.core.shapes import Identity
from services.scheduler.core.state import State
from services.scheduler.core.taints import since_seen


@dataclass(slots=True)
class Batch:
    """What handlers work on. ``out`` is only for what a lower epoch has overwritten; ``started`` was among the events,
    if so."""

    state: State
    now: float
    out: Outputs
    started: Started | None = None


def apply(batch: Batch, events: Iterable[object]) -> None:
    """Applies events in their order, except `Started`, which is noted."""
    for kind, alike in groupby(events, type):
        handler = _HANDLERS.get(kind)
        if handler is None:
            raise TypeError(f"{kind.__name__} is no event of the scheduler")
        for event in alike:
            handler(batch, event)


def _started(batch: Batch, event: Started) -> None:
    batch.started = event


def _nothing(_: Batch, __: Tick) -> None:
    """Time alone changes no table."""


def _stopped(batch: Batch, _: Stopped) -> None:
    batch.state.active = False


def _cluster_registered(batch: Batch, event: ClusterRegistered) -> None:
    state = batch.state
    before = state.fleet.generation
    known = state.fleet.members.get(event.spec.name)
    at = batch.now if event.at is None else min(event.at, batch.now)
    state.fleet.registered(since_seen(event.spec, known.spec if known is not None else None, at))
    if state.fleet.generation != before:
        _candidates_changed(state, event.spec.name)
        for head in state.queue.heads():
            state.ask(head, Mode.FILL)


def _cluster_removed(batch: Batch, event: ClusterRemoved) -> None:
    state = batch.state
    state.fleet.removed(event.cluster)
    for key in sorted(state.entries):
        entry = state.entries[key]
        if event.cluster in entry.assignments or key in state.on_cluster.get(event.cluster, ()):
            state.ask(key, Mode.FILL)


def _candidates_changed(state: State, cluster: str) -> None:
    """A cluster came, went or changed: copies go wherever they may, and what waits may have a place."""
    state.grown[cluster] = None
    for key, policy in sorted(state.policies.all().items()):
        if policy.placement.division is DivisionType.DUPLICATED:
            for workload in sorted(state.by_policy.get(key, ())):
                state.ask(workload, Mode.FILL)
    for workload in sorted(state.on_cluster.get(cluster, ())):
        state.ask(workload, Mode.FILL)


def _inventory_changed(batch: Batch, event: InventoryChanged) -> None:
    state = batch.state
    member = state.fleet.member(event.inventory.cluster)
    stale = member.stale(batch.now, state.settings.stale_after)
    before = state.fleet.generation
    doubt.inventory_changed(state, member, event.inventory)
    known = _classes(member)
    changed = state.fleet.observed(state.credits.observed(state, event.inventory))
    if state.fleet.generation != before:
        _candidates_changed(state, member.name)
    elif changed or stale:
        state.grown[member.name] = None
    if changed and _classes(member) != known:
        state.victims.all_changed(state.on_cluster.get(member.name, ()))


def _classes(member: Member) -> list[tuple[str, Identity]]:
    """Returns the node classes that pods may be on."""
    return [(pool.name, pool.identity) for pool in member.pools]


def _inventory_gone(batch: Batch, event: InventoryGone) -> None:
    state = batch.state
    state.fleet.vanished(event.cluster)
    state.credits.vanished(event.cluster)
    state.victims.all_changed(state.on_cluster.get(event.cluster, ()))


def _pods_changed(batch: Batch, event: PodsChanged) -> None:
    state = batch.state
    entry = state.entry(event.pods.workload)
    before = entry.pods.get(event.pods.cluster)
    if before == event.pods:
        return
    yields = yielding.bounds(state, entry)
    entry.pods[event.pods.cluster] = event.pods
    if yields and yielding.bounds(state, entry) != yields:
        state.ask(entry.key, Mode.FILL)
    ledger.update(state, entry, batch.now)
    doubt.pods_changed(state, entry, before, event.pods, batch.now)
    state.credits.refresh(state, event.pods.cluster)


def _pods_gone(batch: Batch, event: PodsGone) -> None:
    state = batch.state
    entry = state.entries.get(event.workload)
    yields = yielding.bounds(state, entry) if entry is not None else {}
    if entry is not None and entry.pods.pop(event.cluster, None) is not None:
        if event.cluster in yields:
            state.ask(entry.key, Mode.FILL)
        ledger.update(state, entry, batch.now)
        state.credits.refresh(state, event.cluster)
        state.forget(entry)


def _workload_submitted(batch: Batch, event: WorkloadSubmitted) -> None:
    state = batch.state
    workload = event.workload
    entry = state.entry(workload.key)
    known = entry.workload
    if known is not None and workload.version < known.version and workload.version > 0:
        return
    if entry.arrival is None or (known is None and entry.placement is None):
        entry.arrival = workload.arrival
    repeated = (
        known is not None
        and not entry.unreadable
        and (bool(workload.digest) or workload.version == known.version)
        and (workload.digest, workload.uid) == (known.digest, known.uid)
    )
    entry.deleted, entry.unreadable = False, ""
    state.mix.replace(known, workload)
    entry.set_workload(workload)
    state.ranked = state.ranked or ranks(workload)
    state.in_namespace.setdefault(workload.namespace, set()).add(workload.key)
    if not repeated:
        ledger.update(state, entry, batch.now)
        state.ask(workload.key, Mode.FILL)


def _workload_deleted(batch: Batch, event: WorkloadDeleted) -> None:
    state = batch.state
    entry = state.entry(event.workload)
    if entry.workload is not None:
        state.in_namespace.get(entry.workload.namespace, set()).discard(event.workload)
    entry.deleted, entry.unreadable = True, ""
    state.mix.replace(entry.workload, None)
    entry.set_workload(None)
    entry.arrival = None
    ledger.update(state, entry, batch.now)
    state.ask(event.workload, Mode.FILL)


def _workload_unreadable(batch: Batch, event: WorkloadUnreadable) -> None:
    state = batch.state
    entry = state.entry(event.workload)
    entry.unreadable, entry.deleted = event.error, False
    # While the process lives the last readable submission goes on counting; it stays as last decided.
    state.ask(event.workload, Mode.FILL)


def _scaled(batch: Batch, event: Scaled) -> None:
    state = batch.state
    entry = state.entry(event.workload)
    if entry.scale != event.replicas:
        entry.set_scale(event.replicas)
        state.ask(event.workload, Mode.FILL)


def _policy_changed(batch: Batch, event: PolicyChanged) -> None:
    rules.changed(batch.state, event.policy, batch.now)


def _policy_removed(batch: Batch, event: PolicyRemoved) -> None:
    rules.removed(batch.state, event.key, batch.now)


def _evicted(batch: Batch, event: Evicted) -> None:
    state = batch.state
    eviction = event.eviction
    entry = state.entry(eviction.workload)
    if entry.eviction == eviction:
        return
    doubt.evicted(state, eviction, entry.eviction, batch.now)
    entry.eviction = eviction
    placement = entry.placement
    if (placement is not None and pending_eviction(placement, eviction)) or eviction.workload in state.queue:
        state.ask(eviction.workload, Mode.FILL)


def _eviction_gone(batch: Batch, event: EvictionGone) -> None:
    state = batch.state
    entry = state.entries.get(event.workload)
    if entry is not None and entry.eviction is not None:
        entry.eviction = None
        if entry.placement is not None and entry.placement.unplaced > 0:
            state.ask(event.workload, Mode.FILL)
        state.forget(entry)


def _observed(batch: Batch, event: Observed) -> None:
    state = batch.state
    observation = event.observation
    workload, cluster = observation.workload, observation.cluster
    entry = state.entries.get(workload) or state.entry(workload)
    known = entry.observations.get(cluster)
    if known is not None and (observation.version < known.version or known == observation):
        return
    entry.observations[cluster] = observation
    if workload not in state.pending and (
        known is None
        or known.phase is not observation.phase
        or known.health is not observation.health
        or known.version != observation.version
        or known.failure is not observation.failure
    ):
        state.ask(workload, Mode.FILL)


def _observation_gone(batch: Batch, event: ObservationGone) -> None:
    state = batch.state
    entry = state.entries.get(event.workload)
    if entry is not None:
        entry.observations.pop(event.cluster, None)
        state.forget(entry)


def _reschedule_requested(batch: Batch, event: RescheduleRequested) -> None:
    state = batch.state
    if event.workload in state.entries:
        state.ask(event.workload, Mode.FRESH)


def _freeze_changed(batch: Batch, event: FreezeChanged) -> None:
    state = batch.state
    ledger.freeze(state, event.frozen, batch.now)


def _placement_read(batch: Batch, event: PlacementRead) -> None:
    records.placement_read(batch.state, event, batch.now, batch.out)


def _assignment_read(batch: Batch, event: AssignmentRead) -> None:
    records.assignment_read(batch.state, event, batch.now, batch.out)


_HANDLERS: dict[type, Callable[[Batch, Any], None]] = {
    Started: _started,
    Stopped: _stopped,
    ClusterRegistered: _cluster_registered,
    ClusterRemoved: _cluster_removed,
    InventoryChanged: _inventory_changed,
    InventoryGone: _inventory_gone,
    PodsChanged: _pods_changed,
    PodsGone: _pods_gone,
    WorkloadSubmitted: _workload_submitted,
    WorkloadDeleted: _workload_deleted,
    WorkloadUnreadable: _workload_unreadable,
    Scaled: _scaled,
    PolicyChanged: _policy_changed,
    PolicyRemoved: _policy_removed,
    Evicted: _evicted,
    EvictionGone: _eviction_gone,
    Observed: _observed,
    ObservationGone: _observation_gone,
    RescheduleRequested: _reschedule_requested,
    FreezeChanged: _freeze_changed,
    PlacementRead: _placement_read,
    AssignmentRead: _assignment_read,
    Tick: _nothing,
}
